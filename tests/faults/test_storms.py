"""Schedules of faults, each from a seed, on runs through a real broker; the checker judges what is left of each.

A storm that fails says its seed, and keeps its history: python -m tests.faults.checker FILE
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker import OwnBroker
from tests.faults import schedule
from tests.faults.checker import problems
from tests.faults.history import History
from tests.faults.run import Run
from tests.faults.storm import GROWTH_BYTES, Storm
from tests.faults.variants import long

SMALL = ("run.checkpoint_every_s=1", "transport.queue_bytes=1_048_576", "learner.device=cpu")
#: kind of run -> algorithm, client, max_staleness
KINDS = {
    "ppo": ("ppo", "kafka-python", 1),
    "ppo-confluent": ("ppo", "confluent", 1),
    "dqn": ("dqn", "confluent", 1),
    "grpo": ("grpo", "kafka-python", 1),
    "lockstep": ("ppo", "kafka-python", 0),
}
FAST = [("ppo", 1)]
FULL = [(kind, seed) for seed, kind in enumerate(("lockstep", "dqn", "grpo", "ppo-confluent", "ppo", "grpo"), start=11)]
FAST_S, FULL_S = 12.0, 40.0


@pytest.fixture
def own_broker(tmp_path: Path, kafka_jars: None) -> Iterator[OwnBroker]:
    broker = OwnBroker(tmp_path / "broker")
    yield broker
    broker.kill()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "seed", "length_s"),
    [(*case, FAST_S) for case in FAST] + [long(*case, FULL_S) for case in FULL] + [long("lockstep", 9, FAST_S)],
)
def test_every_promise_is_kept_in_a_storm(
    new_run: Callable[..., Run], own_broker: OwnBroker, tmp_path: Path, kind: str, seed: int, length_s: float
) -> None:
    algorithm, client, max_staleness = KINDS[kind]
    url = f"kafka://{own_broker.info.bootstrap}/storm-{uuid.uuid4().hex[:12]}?partitions=3&client={client}"
    run = new_run(algorithm, f"transport.url='{url}'", f"learner.max_staleness={max_staleness}", *SMALL)
    storm, faults = Storm(run, own_broker), schedule.faults(seed, length_s)
    try:
        storm.start()
        storm.play(faults)
        history = storm.end()
    except AssertionError as error:
        raise AssertionError(f"storm {kind}, seed {seed}: {faults}\n{error}") from error
    kept = tmp_path / "history.json"
    history.save(kept)
    assert 1 <= len(history.began) <= 1 + sum(f.target == "learner" and f.what == "kill" for f in faults)
    assert len(history.acked) > 50, "nothing much happened"
    assert len(history.weights) >= 2 <= len(history.memory_bytes), "not everybody was recorded"
    print(
        f"{len(faults)} faults, {len(history.began)} lives of the learner, {len(history.made)} versions made, "
        f"{len(history.log)} records, refused {history.counters['rejected']}"
    )
    found = problems(history, max_staleness, GROWTH_BYTES) + lost_at_a_graceful_end(history)
    assert not found, f"storm {kind}, seed {seed}: {faults}\nthe history is kept in {kept}\n" + "\n".join(found[:20])


def lost_at_a_graceful_end(history: History) -> list[str]:
    """Of each actor's last life, which was told to stop: what it sent and did not wait for."""
    last, acked = {f.actor: f.incarnation for f in history.sent}, set(history.acked)
    return [f"sent, not acknowledged: {f}" for f in history.sent if f.incarnation == last[f.actor] and f not in acked]


@pytest.mark.parametrize("seed", range(50))
def test_a_schedule_is_its_seeds_and_of_one_target_one_at_a_time(seed: int) -> None:
    made = schedule.faults(seed, 20.0)
    assert made == schedule.faults(seed, 20.0) != schedule.faults(seed + 1, 20.0)
    assert {fault.target for fault in made} == set(schedule.TARGETS)
    for target in schedule.TARGETS:
        steps = [step.what for step in schedule.steps(made) if step.target == target]
        pairs = [tuple(steps[i : i + 2]) for i in range(0, len(steps), 2)]
        assert set(pairs) <= {("kill", "start"), ("freeze", "go_on")}
