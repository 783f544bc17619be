"""kill -9 of actors under `headrace train`: others go on, each comes back, nothing is trained on twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.run import Run, assert_nothing_twice_nothing_late, refused
from tests.faults.variants import long


@pytest.mark.parametrize(("algorithm", "steps"), [("ppo", 100_000), long("dqn", 15_000)])
def test_killed_actors_come_back_and_the_run_finishes(new_run: Callable[..., Run], algorithm: str, steps: int) -> None:
    run = new_run(algorithm, f"run.total_steps={steps}")
    train = run.train()
    for victim in (0, 1, 0):
        run.wait_until(lambda v=victim: run.metrics("actor", v).get(("actor_fragments_total",)), "the actor works")
        before, pid = run.version, run.kill("actor", victim)
        run.wait_until(lambda v=victim, p=pid: run.pid("actor", v) not in (None, p), "the actor is back")
        run.wait_until(lambda b=before: run.version > b, "the learner goes on")
    code, said = run.end(train)
    assert (code, said) == (0, "")
    found = run.checkpoint()
    assert found.info["counters"]["env_steps"] >= steps
    assert_nothing_twice_nothing_late(run)
    assert refused(found) == refused(found, "stale"), "nothing was wrong with them"
    assert run.logs().count("died (SIGKILL); starting it again in ") == 3
    assert run.pids() == []
