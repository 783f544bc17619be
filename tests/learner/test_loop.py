"""The learner's books: what is stale, what is refused, where to read on, and what the parameter server is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from headrace.algorithms.ppo import PPO, Config
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, Received
from headrace.common.transport.memory import Memory
from headrace.common.types import Episode, Trajectory, Weights
from headrace.common.validation import Expected, validate
from headrace.common.weights.base import LedgerState, Progress
from headrace.learner.counters import Identity
from headrace.learner.loop import Learner
from tests.learner.fragments import SCHEMA, SPACES, fragment

EPOCH = 1
Make = Callable[..., tuple[Learner, Memory, list[Progress]]]


class Numbered(Memory):
    """The in-process carrier with offsets of one partition, as a log has them."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.offset = 0
        self.seen: list[Trajectory] = []

    def get(self, timeout_s: float) -> Received | None:
        received = super().get(timeout_s)
        if received is None:
            return None
        self.offset += 1
        self.seen.append(received.trajectory)
        return Received(received.trajectory, 0, self.offset, received.nbytes)

    def reject(self, received: Received, reason: str, detail: str) -> None:
        """They are counted elsewhere."""


class Told:
    """A publisher that remembers the counters, of a server that has issued every lease to whoever comes with it."""

    def __init__(self, carrier: Numbered) -> None:
        self.progress: list[Progress] = []
        self.carrier, self.tickets = carrier, 0

    def publish(self, weights: Weights, progress: Progress) -> None:
        self.progress.append(progress)

    def admit(self, progress: Progress) -> None:
        self.progress.append(progress)

    def flush(self, timeout_s: float) -> None:
        """It always has."""

    def listen(self, hear: Callable[[LedgerState, int], None]) -> None:
        self.hear = hear

    def ask(self) -> int:
        self.tickets += 1
        out = tuple(
            (t.lease, t.actor_id, t.incarnation)
            for t in self.carrier.seen
            if t.learner_epoch == EPOCH and t.lease < 100
        )
        self.hear(LedgerState(100, 0, 0, out), self.tickets)
        return self.tickets

    def close(self) -> None:
        """Nothing to release."""


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Learner] = []

    def learner(per_version: int = 1, max_staleness: int = 1, **saved: Any) -> tuple[Learner, Memory, list[Progress]]:
        carrier = Numbered()
        publisher = Told(carrier)
        learner = Learner(
            Identity("run", EPOCH), PPO(Config(fragments=per_version, epochs=1, hidden=(4,)), SPACES, seed=0), carrier,
            publisher, partial(validate, expected=Expected(SCHEMA, "run")), Metrics("learner"), seed=0,
            max_staleness=max_staleness,
            total_steps=1_000_000, queue_bytes=1 << 20, **saved,
        )  # fmt: skip
        made.append(learner)
        learner.start()
        return learner, carrier, publisher.progress

    yield learner
    for one in made:
        one.close()


def bad(lease: int) -> Trajectory:
    return fragment(lease, seq=lease, reward=np.full((4, 2), np.nan, np.float32))


def feed(learner: Learner, carrier: Memory, *fragments: Trajectory) -> None:
    for trajectory in fragments:
        carrier.put(trajectory)
        learner.step(5.0)


def test_a_stale_fragment_is_counted_and_its_lease_spent(make: Make) -> None:
    learner, carrier, told = make()
    feed(learner, carrier, *(fragment(n, seq=n, version=n) for n in range(3)))
    assert told[-1].admit_until == 3 + 1 + 1
    feed(learner, carrier, fragment(3, seq=3, version=1))
    assert (learner.counters.version, learner.counters.rejected, learner.counters.fragments) == (3, {"stale": 1}, 3)
    assert learner.metrics.value("learner_rejected_total", reason="stale") == 1
    assert (told[-1].admit_until, told[-1].accepted, told[-1].spent) == (3 + 1 + 1, 3, ((0, 4),))
    feed(learner, carrier, fragment(4, seq=4, version=2))
    assert learner.counters.version == 4, "one version behind is what is allowed"


def test_refused_fragments_spend_their_leases_and_are_counted_once(make: Make) -> None:
    learner, carrier, told = make()
    feed(learner, carrier, fragment(0, seq=0))
    carrier.put(bad(1))
    carrier.put(bad(2))
    feed(learner, carrier, fragment(3, seq=3, version=1))
    until(lambda: learner.step(0.01) or learner.counters.rejected == {"nan": 2})
    assert (told[-1].admit_until, told[-1].accepted, told[-1].spent) == (2 + 1 + 1, 2, ((0, 4),))
    parts, info = json_of(learner.snapshot())
    learner.close()

    second, carrier, told = make(resume=parts, info=info)
    assert told[-1].spent == ((0, 4),)
    carrier.put(bad(1))  # the log is read again from where it was trained on
    carrier.put(bad(4))
    until(lambda: second.step(0.01) or second.counters.rejected == {"nan": 3})
    assert second.metrics.value("learner_rejected_total", reason="nan") == 2, (
        "of this life: the one that was read again"
    )


def test_nobody_moves_a_counter_by_what_a_record_claims(make: Make) -> None:
    learner, carrier, told = make()
    before = told[-1]
    for lease, version, epoch in ((2**62, 0, 1), (5, 2**62, 1), (6, 0, 2), (2**62, 2**62, 0)):
        carrier.put(replace(fragment(lease, seq=lease, version=version), learner_epoch=epoch))
    until(lambda: learner.step(0.01) or sum(learner.counters.rejected.values()) == 4)
    assert learner.counters.rejected == {"lease": 2, "range": 2}
    assert told[-1] == replace(before, next_lease=100, spent=((5, 6),)), "lease 5 was its own, and bought nothing"
    kept = learner.snapshot()[1]
    assert (kept["issued"], kept["spent"]) == (100, ((5, 6),)), "the next life believes no more"


def test_invented_actors_leave_nothing_in_a_checkpoint(make: Make) -> None:
    learner, carrier, _ = make()
    feed(learner, carrier, fragment(0, seq=0))
    before = learner.snapshot()[1]
    for n in range(300):
        carrier.put(fragment(2**40 + n, actor=n % 30, incarnation=n))
    carrier.put(fragment(0, seq=0))
    until(lambda: learner.step(0.01) or learner.counters.rejected == {"lease": 300, "duplicate": 1})
    after = learner.snapshot()[1]
    assert after["examined"] == {"0": 302}
    after |= {"examined": before["examined"], "counters": after["counters"] | {"rejected": {}}}
    after["counters"]["trained_s"] = before["counters"]["trained_s"]
    assert after == before


def test_an_episode_longer_than_the_run_is_refused(make: Make) -> None:
    learner, carrier, _ = make()
    for lease, length in ((0, 2**31), (1, 1000)):
        carrier.put(replace(fragment(lease, seq=lease), episodes=(Episode(1.0, length),)))
    until(lambda: learner.step(0.01) or learner.counters.version == 1)
    assert learner.counters.rejected == {"range": 1}, "as many fragments as may be early can have been begun before"


def test_what_a_former_learner_collected_is_welcome_until_this_ones_comes(make: Make) -> None:
    learner, carrier, _ = make()
    feed(learner, carrier, fragment(0, seq=0), fragment(1, seq=1, version=1))
    parts, info = json_of(learner.snapshot())
    learner.close()
    second, carrier, _ = make(resume=parts, info=info)
    former = [replace(fragment(n, seq=n, version=2**40), learner_epoch=0) for n in range(2, 9)]
    feed(second, carrier, *former[:4])
    assert second.counters.version == 2 + 4, "what was collected is not lost"
    feed(second, carrier, fragment(20, seq=20, version=6), former[4], former[5])
    assert second.counters.version == 2 + 4 + 2, "they are of version 6 at most, and the second one is too old"
    assert second.counters.rejected == {"stale": 1}


def test_what_waits_is_told_and_read_again_after_a_resume(make: Make) -> None:
    learner, carrier, told = make(per_version=2, max_staleness=9)
    for lease in (5, 4, 1, 0, 3):  # of many partitions, say; offsets 1 to 5 follow this order
        carrier.put(fragment(lease, seq=lease, actor=lease))
    until(lambda: learner.backlog() == 5 and not carrier.backlog())
    learner.step(5.0), learner.step(5.0)
    assert learner.counters.version == 1, "from leases 0 and 1"
    assert (told[-1].accepted, told[-1].backlog, told[-1].complete) == (2 + 3, 0, True)
    assert learner.snapshot()[1]["positions"] == {"0": 0}, "offset 1 waits in the queue"
    learner.step(5.0), learner.step(5.0)
    assert learner.snapshot()[1]["positions"] == {"0": 0}, "lease 5 waits still"
    learner.step(5.0)
    assert learner.snapshot()[1]["positions"] == {"0": 0}, "taken, but no version was made of it"
    feed(learner, carrier, fragment(6, seq=6, actor=6, version=2))
    assert learner.snapshot()[1]["positions"] == {"0": 6}


def test_samples_and_what_waits_are_metrics(make: Make) -> None:
    learner, carrier, _ = make(per_version=2)
    feed(learner, carrier, fragment(0, seq=0))
    learner.finish(1.0)  # whenever the parameter server is told
    assert learner.metrics.value("learner_queue_fragments") == 1
    feed(learner, carrier, fragment(1, seq=1))
    assert learner.metrics.value("learner_queue_fragments") == 0
    assert learner.metrics.value("learner_samples_total") == learner.counters.samples == 2 * fragment(0).steps


def test_a_fresh_learner_keeps_where_every_partition_begins(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Numbered, "position", lambda self: {0: 0, 1: 7, 2: 3})
    learner, carrier, _ = make()
    assert learner.snapshot()[1]["positions"] == {"0": 0, "1": 7, "2": 3}
    feed(learner, carrier, fragment(0, seq=0))
    assert learner.snapshot()[1]["positions"] == {"0": 1, "1": 7, "2": 3}


def test_a_learner_that_waits_says_so(make: Make) -> None:
    learner, _, told = make()
    until(lambda: learner.step(0.05) or len(told) >= 3)
    assert told[0] == Progress(0, complete=True), "nothing may begin before it has read what waits"
    assert told[-1] == told[1] == Progress(2, complete=True)


def test_a_carrier_that_was_asked_long_ago_does_not_prove_that_nothing_waits(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Numbered, "backlog_age_s", lambda self: 8.0)
    learner, _, told = make()
    until(lambda: learner.step(0.05) or len(told) >= 2)
    assert told[-1] == Progress(2, complete=False)


def test_the_end_is_told(make: Make) -> None:
    learner, _, told = make()
    learner.finish(1.0)
    assert told[-1] == Progress(2, complete=True, finished=True)


def json_of(snapshot: tuple[Any, dict[str, Any]]) -> tuple[Any, Any]:
    """As a checkpoint keeps it."""
    return snapshot[0], json.loads(json.dumps(snapshot[1]))


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)
