"""kill -9 of the learner at any moment: the run says how to go on, and goes on where its last checkpoint was."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Callable

import pytest

from headrace.learner.checkpoint_reader import latest
from headrace.observe.rows import lineage
from tests.faults.run import Run, assert_nothing_twice_nothing_late
from tests.faults.variants import long


@pytest.mark.parametrize("algorithm", [long("ppo"), "dqn"])
def test_the_run_ends_and_goes_on_from_its_checkpoint(new_run: Callable[..., Run], algorithm: str) -> None:
    run = new_run(algorithm, "run.total_steps=1_000_000", "algorithm.learning_rate=0.001", "run.checkpoint_keep=100")
    train = run.train()
    run.wait_until(lambda: len(run.checkpoints()) >= 3 and run.version >= 20, "three checkpoints")
    run.kill("learner")
    code, said = run.end(train)
    assert code == 1
    assert f"learner-0 died (SIGKILL); go on with: headrace train --resume --run-dir {run.dir}" in said
    run.wait_until(lambda: not run.pids(), "no process is left")

    before, rows = run.checkpoint(), len(run.rows)
    train = run.train(resume=True)
    reached = before.info["counters"]["version"] + 3
    run.wait_until(lambda: len(run.rows) > rows + 3 and run.version > reached, "rows and versions go on")
    shown = run.metrics("learner")
    assert shown[("learner_epoch",)] == before.info["learner_epoch"] + 1
    assert before.info["counters"]["env_steps"] / 1_000_000 < shown[("learner_progress_ratio",)] < 1
    train.terminate()
    assert run.end(train) == (0, "")

    after, counted = run.checkpoint(), before.info["counters"]
    first = next(row for row in run.rows[rows:] if row["version"] > counted["version"])  # a row may come before it
    assert after.info["learner_epoch"] == before.info["learner_epoch"] + 1
    moving = {n: v for n, v in counted.items() if v and n != "rejected"}  # those may stand still
    assert {n: v for n, v in moving.items() if after.info["counters"][n] <= v} == {}
    assert first["env_steps"] > counted["env_steps"]
    assert first["episodes"] >= counted["episodes"]
    assert first["time_s"] > counted["trained_s"]
    done = first["env_steps"] / first["total_steps"]
    assert first["train"]["learning_rate"] == pytest.approx(0.001 * (1 - done), rel=0.02), "the schedule goes on"
    assert "learning_rate" in first["train"]
    was, now = before.parts["algorithm"], after.parts["algorithm"]
    assert now.tensors["adam.steps"] > was.tensors["adam.steps"]
    assert now.tensors["obs_norm.count"] > was.tensors["obs_norm.count"] >= 64
    if algorithm == "dqn":
        assert now.values["fraction"] > was.values["fraction"], "epsilon follows it"
        inserted = [c.parts["experience"].values["inserted"] for c in (before, after)]
        assert inserted[1] > inserted[0] >= 64
        was, now = (saved.parts["experience"] for saved in (before, after))
        assert now.values["buffer"]["inserted"] >= was.values["buffer"]["inserted"]
        assert now.blocks.keys() >= was.blocks.keys() >= {"obs.000000", "transitions.000000"}
    lines = lineage(run.rows)
    # Rows come by the clock: without a new version they stand where they stood, and a version is made of steps.
    for row, following in itertools.pairwise(lines):
        assert following["version"] >= row["version"]
        assert (following["env_steps"] > row["env_steps"]) == (following["version"] > row["version"])
        assert following["env_steps"] >= row["env_steps"]
    assert_nothing_twice_nothing_late(run)


@pytest.mark.faults_full
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_killed_at_random_moments_it_always_goes_on(new_run: Callable[..., Run], algorithm: str) -> None:
    run = new_run(algorithm, "run.checkpoint_every_s=0.001")
    rng, version = random.Random(algorithm), -1
    run.role("paramserver")
    for index in range(2):
        run.role("actor", "--index", str(index))
    for life, moment in enumerate(("any", "while it writes", "while it writes"), start=1):
        learner = run.role("learner", "--resume")
        run.wait_until(lambda e=life: newest_epoch(run) == e, f"life {life} has written a checkpoint")
        if moment == "any":
            time.sleep(rng.uniform(0.0, 0.5))
        else:
            run.wait_until(lambda: half_written(run), "one is half written")
        learner.kill()
        assert run.end(learner) == (-signal.SIGKILL, "")
        found = run.checkpoint()
        assert found.info["learner_epoch"] == life
        assert found.step == found.info["counters"]["version"] >= version, "back beyond one that was whole"
        version = found.step
    assert_nothing_twice_nothing_late(run)


def half_written(run: Run) -> bool:
    """Whether a checkpoint is being written; it may be finished, and gone from there, while one looks."""
    try:
        return any((run.dir / "checkpoints").glob("tmp-*/*.safetensors"))
    except FileNotFoundError:
        return False


def newest_epoch(run: Run) -> int:
    found = latest(run.dir / "checkpoints")
    return int(found.info["learner_epoch"]) if found else 0


def test_told_to_stop_it_checkpoints_and_goes_on_later(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo", "run.checkpoint_every_s=1000")
    for life, number in enumerate((signal.SIGTERM, signal.SIGINT), start=1):
        rows = len(run.rows)
        train = run.train(resume=life > 1)
        run.wait_until(lambda n=rows: len(run.rows) > n + 2, "rows")
        train.send_signal(number)
        assert run.end(train) == (0, "")
        assert run.pids() == [], "an orphan"
        last, found = run.rows[-1], run.checkpoint()
        assert len(run.checkpoints()) == 1 + life, "one before it began, one at the end of each life"
        assert (found.step, found.info["counters"]["env_steps"]) == (last["version"], last["env_steps"])
        assert found.info["learner_epoch"] == life
        assert (run.folder / "train.out").read_text().count(f"headrace train --resume --run-dir {run.dir}") == life
    lines = [row["env_steps"] for row in run.rows]
    assert lines == sorted(lines), "nothing was done twice"
    more = last["env_steps"] + 2000
    again = run.train("--set", f"run.total_steps={more}", resume=True)
    assert run.end(again) == (0, "")
    assert more <= run.rows[-1]["env_steps"] < more + 1000, "the new length reached the learner"


def test_children_of_a_killed_supervisor_end_by_themselves(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo")
    train = run.train()
    run.wait_for_version(10)
    assert len(run.pids()) == 4
    train.kill()
    run.wait_until(lambda: not run.pids(), "the children are gone", timeout_s=15)
    assert run.checkpoint().info["counters"]["version"] >= run.version, "the learner saved its work"
