"""The learner's books: what is stale, what is refused, where to read on, and what the parameter server is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from headrace.algorithms.ppo import PPO, Config
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, Received
from headrace.common.transport.memory import Memory
from headrace.common.types import Trajectory, Weights
from headrace.common.validation import validate
from headrace.common.weights.base import Progress
from headrace.learner.loop import Identity, Learner
from tests.learner.fragments import SCHEMA, SPACES, fragment

Make = Callable[..., tuple[Learner, Memory, list[Progress]]]


class Numbered(Memory):
    """The in-process carrier with offsets of one partition, as a log has them."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.offset = 0

    def get(self, timeout_s: float) -> Received | None:
        received = super().get(timeout_s)
        if received is None:
            return None
        self.offset += 1
        return Received(received.trajectory, 0, self.offset, received.nbytes)

    def reject(self, received: Received, reason: str, detail: str) -> None:
        """They are counted elsewhere."""


class Told:
    """A publisher that remembers the counters."""

    def __init__(self) -> None:
        self.progress: list[Progress] = []

    def publish(self, weights: Weights, progress: Progress) -> None:
        self.progress.append(progress)

    def admit(self, progress: Progress) -> None:
        self.progress.append(progress)

    def close(self) -> None:
        """Nothing to release."""


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Learner] = []

    def learner(per_version: int = 1, **saved: Any) -> tuple[Learner, Memory, list[Progress]]:
        carrier, publisher = Numbered(), Told()
        learner = Learner(
            Identity("run", 1), PPO(Config(fragments=per_version, epochs=1, hidden=(4,)), SPACES, seed=0), carrier,
            publisher, partial(validate, schema=SCHEMA, run_id="run"), Metrics("learner"), seed=0, max_staleness=1,
            total_steps=1_000_000, queue_bytes=1 << 20, **saved,
        )  # fmt: skip
        made.append(learner)
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


def test_a_stale_fragment_is_counted_and_its_lease_made_up_for(make: Make) -> None:
    learner, carrier, told = make()
    feed(learner, carrier, *(fragment(n, seq=n, version=n) for n in range(3)))
    assert told[-1].admit_until == 3 + 1 + 1
    feed(learner, carrier, fragment(3, seq=3, version=1))
    assert (learner.counters.version, learner.counters.stale, learner.counters.fragments) == (3, 1, 3)
    assert learner.metrics.value("learner_rejected_total", reason="stale") == 1
    assert (told[-1].admit_until, told[-1].consumed) == (3 + 1 + 1 + 1, 3 + 1)
    feed(learner, carrier, fragment(4, seq=4, version=2))
    assert learner.counters.version == 4, "one version behind is what is allowed"


def test_refused_fragments_go_on_counting_after_a_resume(make: Make) -> None:
    learner, carrier, told = make()
    feed(learner, carrier, fragment(0, seq=0), bad(1), bad(2), fragment(3, seq=3, version=1))
    until(lambda: learner.step(0.01) or told[-1].admit_until == 2 + 1 + 1 + 2)
    parts, info = learner.snapshot()
    assert info["counters"]["rejected"] == 2

    second, carrier, told = make(resume=parts, info=info)
    assert told[-1].admit_until == 2 + 1 + 1 + 2
    carrier.put(bad(4))
    until(lambda: second.step(0.01) or told[-1].admit_until == 2 + 1 + 1 + 3)


def test_what_waits_is_told_and_read_again_after_a_resume(make: Make) -> None:
    learner, carrier, told = make(per_version=2)
    for lease in (5, 4, 1, 0, 3):  # of many partitions, say; offsets 1 to 5 follow this order
        carrier.put(fragment(lease, seq=lease, actor=lease, version=lease // 2))
    until(lambda: learner.backlog() == 5 and not carrier.backlog())
    learner.step(5.0), learner.step(5.0)
    assert learner.counters.version == 1, "from leases 0 and 1"
    assert (told[-1].consumed, told[-1].backlog, told[-1].complete) == (2, 3, True)
    assert learner.snapshot()[1]["positions"] == {"0": 0}, "offset 1 waits in the queue"
    learner.step(5.0), learner.step(5.0)
    assert learner.snapshot()[1]["positions"] == {"0": 0}, "lease 5 waits still"
    learner.step(5.0)
    assert learner.snapshot()[1]["positions"] == {"0": 0}, "taken, but no version was made of it"
    feed(learner, carrier, fragment(6, seq=6, actor=6, version=2))
    assert learner.snapshot()[1]["positions"] == {"0": 6}


def test_a_learner_that_waits_says_so(make: Make) -> None:
    learner, _, told = make()
    until(lambda: learner.step(0.05) or len(told) >= 3)
    assert told[-1] == told[0] == Progress(2, 0, 0, 0, complete=True)


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)
