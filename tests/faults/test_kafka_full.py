"""Through a real broker: a frozen learner, a log whose beginning is gone, a broker whose disk is full."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.transport.kafka_address import parse
from tests.broker import OwnBroker
from tests.common import independent
from tests.faults.run import Run, alive, assert_nothing_twice_nothing_late
from tests.faults.test_kafka import Log, url
from tests.faults.variants import long


def roles(run: Run) -> tuple[object, ...]:
    run.role("paramserver")
    learner = run.role("learner", "--episodes", "0")
    return (learner, *(run.role("actor", "--index", str(index)) for index in range(2)))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("for_s", [5.0, long(60.0)])
def test_a_frozen_learner_goes_on_and_nobody_takes_its_place(
    new_run: Callable[..., Run], kafka_bootstrap: str, for_s: float
) -> None:
    run = new_run("ppo", f"transport.url='{url(kafka_bootstrap, 'kafka-python')}'")
    learner, *actors = roles(run)
    run.wait_for_version(20)
    os.kill(learner.pid, signal.SIGSTOP)
    began_s = time.monotonic()
    code, said = run.end(run.role("learner", "--resume"))
    assert code == 2, said
    assert f"is being written by the process with pid {learner.pid}: stop it first" in said
    time.sleep(max(0.0, began_s + for_s - time.monotonic()))
    stood = run.version
    os.kill(learner.pid, signal.SIGCONT)
    run.wait_for_version(stood + 30)
    lag = {key: value for key, value in run.metrics("learner").items() if key[0] == "transport_lag_records"}
    assert lag
    assert sum(lag.values()) <= run.config.leases_at_once, "what waited was taken"
    assert [process.poll() for process in (learner, *actors)] == [None] * 3
    learner.terminate()
    assert run.end(learner)[0] == 0
    assert run.checkpoint().info["learner_epoch"] == 1
    assert_nothing_twice_nothing_late(run)
    Log(run).assert_applied_once_without_a_gap()


@pytest.mark.faults_full
def test_what_retention_took_from_a_dead_learner_is_counted_and_the_run_goes_on(
    new_run: Callable[..., Run], kafka_bootstrap: str
) -> None:
    run = new_run("ppo", f"transport.url='{url(kafka_bootstrap, 'kafka-python')}'", "run.checkpoint_every_s=2")
    learner, *actors = roles(run)
    run.wait_until(lambda: run.checkpoints() and run.checkpoint().step > 0, "a checkpoint")
    run.wait_for_version(run.checkpoint().step + 20)
    learner.kill()
    run.end(learner)
    before, topic = run.checkpoint(), parse(run.config.transport.url).topic
    ends = Log(run)
    lost = 0
    for p, offset in ends.positions.items():
        end = 1 + max((at for q, at in ends.records if q == p), default=-1)
        if end > offset:
            gap = min(7, end - offset)
            independent.delete_before(kafka_bootstrap, topic, p, offset + gap)
            lost += gap
    assert lost
    rows = len(run.rows)
    learner = run.role("learner", "--resume", "--episodes", "0")
    run.wait_until(lambda: len(run.rows) > rows and run.version > before.step + 60, "it goes on")
    assert run.metrics("learner")[("transport_gap_records_total",)] == lost
    learner.terminate()
    code, said = run.end(learner)
    assert code == 0, said
    assert "were removed by retention before they were read" in said
    assert [actor.poll() for actor in actors] == [None, None]
    assert_nothing_twice_nothing_late(run)


@pytest.fixture
def own_broker(tmp_path: Path, kafka_jars: None) -> Iterator[OwnBroker]:
    broker = OwnBroker(tmp_path / "broker")
    yield broker
    if alive(broker.info.pid):
        broker.kill()


@pytest.mark.faults_full
@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_broker_whose_disk_is_full_costs_nothing_once_it_is_back(
    new_run: Callable[..., Run], own_broker: OwnBroker, client: str
) -> None:
    """A broker with one log directory that it cannot write to ends itself; it is started again when there is room."""
    run = new_run("ppo", f"transport.url='{url(own_broker.info.bootstrap, client)}'")
    learner, *actors = roles(run)
    run.wait_for_version(20)
    resource.prlimit(own_broker.info.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    own_broker.wait_until_gone()
    own_broker.start()
    run.wait_for_version(run.version + 30)
    assert [process.poll() for process in (learner, *actors)] == [None] * 3
    for process in (*actors, learner):
        process.terminate()
        assert run.end(process)[0] == 0
    assert_nothing_twice_nothing_late(run)
    Log(run).assert_applied_once_without_a_gap()
