"""headrace.train_serial: in the caller's own process, for what only that process has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import headrace

SMALL = {"learner.device": "cpu", "actors.envs": 2, "actors.fragment_steps": 16, "algorithm.hidden": [16]}


class Corridor(gymnasium.Env):
    """Ten steps to the right."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.moves = 0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.at, self.moves = max(0, self.at + 2 * action - 1), self.moves + 1
        return np.array([self.at / 10], np.float32), float(self.at == 10) - 0.01, self.at == 10, self.moves == 50, {}


def test_the_learner_is_at_hand_at_every_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []
    serial = headrace.train_serial(
        {"algorithm": {"name": "ppo", "fragments": 2}},
        SMALL,
        on_version=lambda learner, trained: seen.append((learner.counters.version, trained.metrics["entropy"])),
        versions=3,
    )
    assert [version for version, _ in seen] == [1, 2, 3]
    assert all(0 < entropy <= np.log(2) + 1e-6 for _, entropy in seen)
    assert sum(p.numel() for p in serial.learner.algorithm.pi.parameters()) > 0
    agent = serial.agent()
    assert (agent.version, agent.env_steps) == (3, serial.learner.counters.env_steps)
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_the_session_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of a notebook: its module is called __main__."""
    monkeypatch.setattr(Corridor, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Corridor", Corridor, raising=False)
    serial = headrace.train_serial("cartpole-ppo", {**SMALL, "task.env": Corridor, "run.total_steps": 20_000})
    assert serial.agent().act(np.linspace(0, 0.9, 10)[:, None]).tolist() == [1] * 10


def test_what_a_callback_raises_comes_out() -> None:
    def wrong(learner: object, trained: object) -> None:
        raise ZeroDivisionError("a slip")

    with pytest.raises(ZeroDivisionError, match="a slip"):
        headrace.train_serial("cartpole-ppo", SMALL, on_version=wrong)


def test_a_debugger_may_stand_in_an_environment_for_as_long_as_it_likes(tmp_path: Path) -> None:
    """Actors end when a call into one hangs."""
    code = (
        "import time, headrace\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Stood(CartPoleEnv):\n"
        "    stands_s = [1.0, 1.0]  # when it is looked at, and when it is collected in\n"
        "    def reset(self, **options):\n"
        "        time.sleep(self.stands_s.pop() if self.stands_s else 0)\n"
        "        return super().reset(**options)\n"
        f"settings = {SMALL!r} | {{'task.env': Stood, 'actors.processes': 1, 'actors.step_timeout_s': 0.2}}\n"
        "print(headrace.train_serial('cartpole-ppo', settings, versions=1).learner.counters.version)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
