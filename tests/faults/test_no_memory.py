"""A learner that may take no more memory (RLIMIT_AS, set from outside on the running process): it ends and says so, and
the run goes on from its checkpoint."""

from __future__ import annotations

import resource
from collections.abc import Callable

from tests.faults.run import Run, assert_nothing_twice_nothing_late


def test_a_learner_out_of_memory_ends_the_run_with_its_reason_and_goes_on_later(new_run: Callable[..., Run]) -> None:
    run = new_run("dqn")
    train = run.train()
    run.wait_until(lambda: run.checkpoints() and run.version > 20, "a checkpoint")
    pid = run.pid("learner")
    assert pid is not None
    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
    code, said = run.end(train)
    assert code == 1, said
    assert "learner-0 died (" in said, said
    assert f"go on with: headrace train --resume --run-dir {run.dir}" in said
    before, rows = run.checkpoint(), len(run.rows)
    train = run.train(resume=True)
    run.wait_until(lambda: len(run.rows) > rows and run.version > before.step + 20, "it goes on")
    train.terminate()
    assert run.end(train) == (0, "")
    assert run.checkpoint().info["learner_epoch"] == before.info["learner_epoch"] + 1
    assert_nothing_twice_nothing_late(run)
