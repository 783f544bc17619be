"""Deaths while the trajectories travel through a real Kafka: what was acknowledged is trained on, and once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.codec import decode
from headrace.common.types import Trajectory
from tests.broker import OwnBroker
from tests.common import independent
from tests.faults.run import Run, assert_nothing_twice_nothing_late
from tests.faults.variants import long


def url(server: str, client: str) -> str:
    return f"kafka://{server}/faults-{uuid.uuid4().hex[:12]}?partitions=3&client={client}"


class Log:
    """The whole topic as another client reads it, and what a checkpoint says of it."""

    def __init__(self, run: Run) -> None:
        place = run.config.transport.url.removeprefix("kafka://")
        server, _, topic = place.partition("?")[0].partition("/")
        self.records: dict[tuple[int, int], Trajectory] = {}
        for message in independent.consume(server, topic):
            self.records[message.partition(), message.offset()] = decode(message.value(), 8 << 20)
        found = run.checkpoint()
        self.info = found.info
        self.positions = {int(p): offset for p, offset in found.info["positions"].items()}

    def assert_applied_once_without_a_gap(self) -> None:
        """The leases of every record below the checkpoint's positions are spent, and no others are but what it had
        begun to take beyond them; the count says that none was trained on twice."""
        spent = {n for first, end in self.info["spent"] for n in range(first, end)}
        below = {t.lease for (p, offset), t in self.records.items() if offset < self.positions.get(p, 0)}
        assert below <= spent, "a gap"
        assert spent <= {t.lease for t in self.records.values()}, "an acknowledged record is not in the log"
        counters = self.info["counters"]
        assert counters["rejected"].keys() <= {"stale"}
        assert len(spent) == counters["fragments"] + counters["rejected"].get("stale", 0), "trained on twice, or never"


@pytest.mark.parametrize(("algorithm", "client"), [long("ppo", "kafka-python"), ("dqn", "confluent")])
def test_a_killed_learner_takes_up_the_log_where_its_checkpoint_was(
    new_run: Callable[..., Run], algorithm: str, client: str, kafka_bootstrap: str
) -> None:
    run = new_run(algorithm, f"transport.url='{url(kafka_bootstrap, client)}'", "run.checkpoint_every_s=2")
    run.role("paramserver")
    for index in range(2):
        run.role("actor", "--index", str(index))
    learner = run.role("learner")
    run.wait_until(run.checkpoints, "a checkpoint")
    first = run.checkpoint().step
    run.wait_for_version(first + 20)  # what is to be done again
    learner.kill()
    run.end(learner)
    before, rows = run.checkpoint(), len(run.rows)
    lives = [run.pid("actor", index) for index in range(2)]

    learner = run.role("learner", "--resume")
    run.wait_until(
        lambda: len(run.rows) > rows and run.version > run.rows[rows - 1]["version"] + 20, "beyond its death"
    )
    learner.terminate()
    assert run.end(learner) == (0, "")
    assert [run.pid("actor", index) for index in range(2)] == lives, "actors do not notice"
    after = run.checkpoint()
    assert after.info["learner_epoch"] == before.info["learner_epoch"] + 1
    assert after.info["counters"]["rejected"] == {}, "overtaken"
    assert_nothing_twice_nothing_late(run)
    Log(run).assert_applied_once_without_a_gap()


@pytest.fixture
def own_broker(tmp_path: Path, kafka_jars: None) -> Iterator[OwnBroker]:
    broker = OwnBroker(tmp_path / "broker")
    yield broker
    broker.kill()


@pytest.mark.faults_full
@pytest.mark.parametrize(("algorithm", "client"), [("ppo", "kafka-python"), ("dqn", "confluent")])
def test_a_killed_broker_comes_back_and_everybody_goes_on(
    new_run: Callable[..., Run], algorithm: str, client: str, own_broker: OwnBroker
) -> None:
    run = new_run(algorithm, f"transport.url='{url(own_broker.info.bootstrap, client)}'")
    train = run.train()
    run.wait_for_version(20)
    lives = [run.pid(role, index) for role, index in (("learner", 0), ("actor", 0), ("actor", 1))]
    own_broker.kill()
    own_broker.start()
    came_back = run.version
    run.wait_for_version(came_back + 30)
    assert [run.pid(role, index) for role, index in (("learner", 0), ("actor", 0), ("actor", 1))] == lives
    train.terminate()
    assert run.end(train) == (0, "")
    assert_nothing_twice_nothing_late(run)
    Log(run).assert_applied_once_without_a_gap()


@pytest.mark.faults_full
def test_a_run_that_goes_on_waits_for_its_broker_and_says_how_to_go_on_when_that_was_in_vain(
    new_run: Callable[..., Run], own_broker: OwnBroker
) -> None:
    run = new_run("ppo", f"transport.url='{url(own_broker.info.bootstrap, 'kafka-python')}'", "actors.processes=1")
    train = run.train()
    run.wait_until(lambda: run.checkpoints() and run.version > 5, "a checkpoint")
    train.terminate()
    assert run.end(train) == (0, "")
    own_broker.kill()
    impatient = f"transport.url='{run.config.transport.url}&patience_s=2'"
    code, said = run.end(run.train("--set", impatient, resume=True))
    assert code == 1, said
    assert "no broker answers" in said
    assert "learner-0 died (exit code 1); go on with: headrace train --resume --run-dir" in said
    assert run.pids() == []

    version, log = run.checkpoint().step, run.dir / "logs" / "learner-0.log"
    log.unlink()
    (run.folder / "train.out").write_text("")
    train = run.train(resume=True)
    run.wait_until(lambda: log.exists() and "waiting for it, " in log.read_text(), "the learner waits")
    run.wait_until(
        lambda: "no broker answers" in (run.folder / "train.out").read_text(),
        "an actor has met the broker that is away",
    )
    own_broker.start()
    run.wait_for_version(version + 5)
    train.terminate()
    assert run.end(train) == (0, "")
    assert_nothing_twice_nothing_late(run)
