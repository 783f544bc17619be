"""kill -9 of the learner and the parameter server together: nobody is left who knows which leases are out, and those
who have them are honest all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.run import Run, assert_nothing_twice_nothing_late
from tests.faults.test_kafka import Log, url


@pytest.mark.faults_full
@pytest.mark.parametrize(("algorithm", "client"), [("ppo", "kafka-python"), ("dqn", "confluent")])
def test_honest_leases_of_before_are_never_refused(
    new_run: Callable[..., Run], algorithm: str, client: str, kafka_bootstrap: str
) -> None:
    run = new_run(algorithm, f"transport.url='{url(kafka_bootstrap, client)}'", "run.checkpoint_every_s=2")
    run.role("paramserver")
    for index in range(2):
        run.role("actor", "--index", str(index))
    learner = run.role("learner")
    for life in range(1, 3):
        run.wait_until(lambda n=life: run.checkpoints() and run.checkpoint().info["learner_epoch"] == n, "a checkpoint")
        run.wait_for_version(run.checkpoint().step + 20)  # leases that no checkpoint knows of
        lives, rows = [run.pid("actor", index) for index in range(2)], len(run.rows)
        learner.kill()
        run.kill("paramserver")
        run.end(learner)
        run.role("paramserver")
        learner = run.role("learner", "--resume")
        run.wait_until(
            lambda n=rows: len(run.rows) > n and run.version > run.rows[n - 1]["version"] + 20, "beyond their death"
        )
    learner.terminate()
    assert run.end(learner) == (0, "")
    assert [run.pid("actor", index) for index in range(2)] == lives, "an actor died of it"
    assert run.checkpoint().info["counters"]["rejected"].keys() <= {"stale"}, "an honest lease was refused"
    assert_nothing_twice_nothing_late(run)
    Log(run).assert_applied_once_without_a_gap()
