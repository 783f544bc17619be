"""A learner that asks for more memory than there is: the run ends, and says what of."""

from __future__ import annotations

import resource
from collections.abc import Callable

from tests.faults.run import Run

#: Of address space, which torch alone takes half of; and of transitions, several times as much.
ROOM_BYTES, CAPACITY = 8 << 30, 1_000_000_000


def test_a_learner_out_of_memory_ends_the_run_with_its_reason(new_run: Callable[..., Run]) -> None:
    run = new_run("dqn", f"algorithm.capacity={CAPACITY}")
    train = run.train()
    resource.prlimit(train.pid, resource.RLIMIT_AS, (ROOM_BYTES, ROOM_BYTES))  # before it has started any other
    code, said = run.end(train)
    assert code == 1, said
    assert "learner-0 died (exit code 1)" in said, said
    assert "Unable to allocate" in said, said
    assert run.pids() == [], "nobody is left"
