"""Actors that end otherwise than by SIGKILL: politely, with exit code 0, by their environment's fault, for memory."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.run import Run

#: An environment as people write them, known to every process as Broken-v0; ``{step}`` is what its step does besides.
BROKEN = """
import os
import gymnasium
import numpy as np

class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps, kept = 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {{}}

    def step(self, action):
        Broken.steps += 1
        {step}
        return np.zeros(4, np.float32), 1.0, Broken.steps % 10 == 0, False, {{}}

gymnasium.register("Broken-v0", Broken)
"""


#: 64 KiB a step, tens of MB a second.
LEAK = "Broken.kept.append(np.ones(1 << 13))"


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """broken("what its step does") -> the setting that trains on it."""

    def write(step: str) -> str:
        (tmp_path / "broken_env.py").write_text(BROKEN.format(step=step))
        (tmp_path / "sitecustomize.py").write_text("import broken_env")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return "task.env=Broken-v0"

    return write


@pytest.mark.faults_full
def test_an_actor_stopped_politely_is_started_again(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo")
    train = run.train()
    run.wait_until(lambda: run.metrics("actor", 0).get(("actor_fragments_total",)), "the actor works")
    pid = run.pid("actor", 0)
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    run.wait_until(lambda: run.pid("actor", 0) not in (None, pid), "the actor is back")
    run.wait_for_version(run.version + 5)
    train.terminate()
    assert run.end(train) == (0, "")
    assert "actor-0 ended though the run goes on (exit code 0); starting it again in " in run.logs()


@pytest.mark.faults_full
def test_an_environment_that_ends_the_process_with_exit_code_0_does_not_end_the_training(
    new_run: Callable[..., Run], broken: Callable[[str], str]
) -> None:
    run = new_run("ppo", broken("Broken.steps > 500 and os._exit(0)"), "run.total_steps=2500")
    train = run.train()
    assert run.end(train) == (0, "")
    assert run.rows[-1]["env_steps"] >= 2500
    assert run.logs().count("ended though the run goes on (exit code 0); starting it again in ") >= 3


@pytest.mark.faults_full
def test_when_no_actor_can_go_on_the_run_ends_and_says_why(
    new_run: Callable[..., Run], broken: Callable[[str], str]
) -> None:
    run = new_run("ppo", broken("raise ZeroDivisionError('the pendulum has no mass')"))
    code, said = run.end(run.train())
    assert code == 1
    assert re.search(r"no actor can go on: actor-[01] died \(exit code 1\): .*the pendulum has no mass", said), said
    assert f"go on with: headrace train --resume --run-dir {run.dir}" in said
    assert len(said.splitlines()) <= 4, said
    assert run.pids() == []


def test_an_actor_whose_environment_leaks_is_ended_and_started_again(
    new_run: Callable[..., Run], broken: Callable[[str], str]
) -> None:
    run = new_run("ppo", broken(LEAK), "actors.memory_bytes=400_000_000", "actors.processes=1")
    train = run.train()
    told = (
        r"actor-0 died \(exit code 1\): actor 0: took 0\.\d\d GiB of memory, actors.memory_bytes allows 0.37: .*; start"
    )
    run.wait_until(lambda: len(re.findall(told, run.logs())) >= 2, "ended for its memory, twice")
    run.wait_for_version(run.version + 5)
    train.terminate()
    assert run.end(train) == (0, "")


def test_a_single_actor_keeps_the_limit_it_was_given(new_run: Callable[..., Run], broken: Callable[[str], str]) -> None:
    run = new_run("ppo", broken(LEAK), "actors.memory_bytes=400_000_000")
    run.role("paramserver"), run.role("learner")
    code, said = run.end(run.role("actor"))
    assert code == 1
    assert said.splitlines()[-1].startswith("actor 0: took 0."), said
