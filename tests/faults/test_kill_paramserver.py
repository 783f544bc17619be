"""kill -9 of the parameter server: it holds nothing that is not elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.run import Run, assert_nothing_twice_nothing_late, refused
from tests.faults.variants import long


@pytest.mark.faults_full
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_under_train_it_is_started_again_and_the_run_goes_on(new_run: Callable[..., Run], algorithm: str) -> None:
    run = new_run(algorithm)
    train = run.train()
    run.wait_for_version(10)
    lives = [run.pid(role, index) for role, index in (("learner", 0), ("actor", 0), ("actor", 1))]
    for _ in range(3):
        killed, version = run.kill("paramserver"), run.version
        run.wait_until(lambda v=version: run.version > v + 4, "versions nobody had leases for", timeout_s=10)
        run.wait_until(lambda p=killed: run.pid("paramserver") not in (None, p), "the new one is there")
    assert [run.pid(role, index) for role, index in (("learner", 0), ("actor", 0), ("actor", 1))] == lives
    train.terminate()
    assert run.end(train) == (0, "")
    assert run.logs().count("paramserver-0 died (SIGKILL); starting it again in ") == 3
    assert_nothing_twice_nothing_late(run)


@pytest.mark.parametrize("algorithm", [long("ppo"), "dqn"])
def test_a_new_one_on_the_same_address_is_filled_again(new_run: Callable[..., Run], algorithm: str) -> None:
    run = new_run(algorithm)
    run.role("paramserver")
    learner = run.role("learner")
    for index in range(2):
        run.role("actor", "--index", str(index))
    run.wait_for_version(20)
    lives = [run.pid("actor", index) for index in range(2)]
    for _ in range(2):
        first = run.kill("paramserver")
        run.role("paramserver")
        run.wait_until(lambda p=first: run.pid("paramserver") not in (None, p), "the new one is there")
        run.wait_until(lambda: held(run, "paramserver", "weights_version") >= 20, "it was filled", timeout_s=10)
        newest = held(run, "paramserver", "weights_version")
        for index in range(2):
            run.wait_until(
                lambda i=index, v=newest: held(run, "actor", "actor_policy_version", i) >= v,
                "the actor has the version of then", timeout_s=10,
            )  # fmt: skip
        run.wait_for_version(int(newest) + 20)
    assert held(run, "actor", "up_seconds") > 0
    # Who had nothing to ask while a server was away did not notice that one.
    assert held(run, "learner", "weights_reconnects_total") >= 1
    assert sum(held(run, "actor", "weights_reconnects_total", index) for index in range(2)) >= 1
    learner.terminate()
    code, said = run.end(learner)
    assert code == 0, said
    assert all(line.endswith("; goes on waiting") for line in said.splitlines()), said
    assert_nothing_twice_nothing_late(run)
    assert refused(run.checkpoint()) == 0, "a burst of leases"
    assert [run.pid("actor", index) for index in range(2)] == lives, "an actor died of it"


def held(run: Run, role: str, name: str, index: int = 0) -> float:
    return run.metrics(role, index).get((name,), -1.0)
