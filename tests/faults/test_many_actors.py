"""kill -9 of half of the actors, of all, of one after another: the learner waits for them without spinning."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import psutil
import pytest

from tests.faults.run import Run, assert_nothing_twice_nothing_late, refused

ACTORS, KILLS = 4, 20


def test_a_learner_that_lost_its_actors_waits_and_does_not_spin(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo", f"actors.processes={ACTORS}", "run.checkpoint_every_s=60", "run.log_every_s=1")
    run.role("paramserver")
    learner = run.role("learner", "--episodes", "0")
    actors = [run.role("actor", "--index", str(index)) for index in range(ACTORS)]
    run.wait_until(lambda: all(run.metrics("actor", i).get(("actor_fragments_total",)) for i in range(ACTORS)), "all")
    for actor in actors[: ACTORS // 2]:
        actor.kill()
    run.wait_for_version(run.version + 20)  # the others' leases were not held by the dead for ever
    for actor in actors[ACTORS // 2 :]:
        actor.kill()
    time.sleep(1.0)  # what is under way comes in
    stood, process = version(run), psutil.Process(learner.pid)
    used = process.cpu_times()
    time.sleep(5.0)
    now = process.cpu_times()
    assert version(run) == stood
    busy_s = now.user + now.system - used.user - used.system
    assert busy_s < 0.1 * 5.0, f"{busy_s:.2f} s of CPU in 5 s of waiting"
    for index in range(ACTORS):
        run.role("actor", "--index", str(index))
    run.wait_until(lambda: version(run) > stood + 20, "versions again")
    learner.terminate()
    assert run.end(learner)[0] == 0
    assert_nothing_twice_nothing_late(run)


def version(run: Run) -> float:
    return run.metrics("learner").get(("learner_policy_version",), -1.0)


@pytest.mark.faults_full
@pytest.mark.timeout(600)
def test_after_each_of_twenty_random_kills_both_actors_deliver_again(new_run: Callable[..., Run]) -> None:
    """Within 15 s of the new life's beginning; the supervisor's pauses grow for what dies again soon."""
    run, rng = new_run("ppo"), random.Random(20)
    train = run.train()
    run.wait_until(lambda: all(delivered(run, index) for index in range(2)), "both work")
    for _ in range(KILLS):
        victim = rng.randrange(2)
        pid, other = run.kill("actor", victim), delivered(run, 1 - victim)
        run.wait_until(lambda v=victim, p=pid: run.pid("actor", v) not in (None, p), "a new life", timeout_s=25)
        run.wait_until(lambda v=victim: delivered(run, v) >= 5, "it delivers", timeout_s=15)
        run.wait_until(lambda v=victim, n=other: delivered(run, 1 - v) > n, "so does the other", timeout_s=15)
    train.terminate()
    assert run.end(train) == (0, "")
    assert_nothing_twice_nothing_late(run)
    assert refused(run.checkpoint()) == refused(run.checkpoint(), "stale")


def delivered(run: Run, index: int) -> float:
    """Fragments of an actor's present life."""
    return run.metrics("actor", index).get(("actor_fragments_total",), 0.0)
