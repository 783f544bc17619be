"""Environments that do what environments should not, each after some good steps. Importing this registers them:
``--set task.env=tests.tasks.bad_envs:Nan-v0`` makes real actors meet them. All look like CartPole from outside.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

#: Steps that are good before a bad one.
GOOD = 5


class Good(gymnasium.Env):
    """Episodes of 50 steps. ``once``: a file that the first bad step leaves behind; no environment is bad after it."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, once: str = "") -> None:
        self._once = Path(once) if once else None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._steps += 1
        obs, reward = np.full(4, 0.1, np.float32), 1.0
        if self._steps == GOOD and not (self._once and self._once.exists()):
            if self._once:
                self._once.touch()
            obs, reward = self.bad(obs, reward)
        return obs, reward, self._steps == 50, False, {}

    def bad(self, obs: Any, reward: Any) -> tuple[Any, Any]:
        return obs, reward


class Nan(Good):
    def bad(self, obs, reward):
        return np.array([0, np.nan, 0, 0], np.float32), reward


class NanReward(Good):
    def bad(self, obs, reward):
        return obs, float("nan")


class HugeReward(Good):
    def bad(self, obs, reward):
        return obs, 1e30


class NoReward(Good):
    def bad(self, obs, reward):
        return obs, None


class OtherShape(Good):
    """A shape that numpy would broadcast without a word."""

    def bad(self, obs, reward):
        return obs[:1], reward


class OtherDtype(Good):
    def bad(self, obs, reward):
        return obs.astype(np.complex64), reward


class Raises(Good):
    def bad(self, obs, reward):
        raise ArithmeticError("the pole\nis gone")


class RaisesInReset(Good):
    def reset(self, *, seed=None, options=None):
        raise LookupError("no level left")


class Leaves(Good):
    def bad(self, obs, reward):
        sys.exit(0)


class Hangs(Good):
    def bad(self, obs, reward):
        while True:
            time.sleep(0.01)


class HangsInC(Good):
    """In a call that never lets go of the GIL."""

    def bad(self, obs, reward):
        ctypes.PyDLL(None).sleep(1000)
        return obs, reward


class Slow(Good):
    """Not bad: every step takes its time."""

    def __init__(self, step_s: float) -> None:
        super().__init__()
        self._step_s = step_s

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        time.sleep(self._step_s)
        self._steps += 1
        return np.full(4, 0.1, np.float32), 1.0, self._steps == 50, False, {}


class Crashes(Good):
    def bad(self, obs, reward):
        os.kill(os.getpid(), signal.SIGSEGV)
        return obs, reward


class CannotBeMade(Good):
    def __init__(self, once: str = "") -> None:
        raise OSError("licence server\nnot found")


class TextObs(Good):
    observation_space = gymnasium.spaces.Text(5)


class DictAction(Good):
    action_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})


for made in (Good, *Good.__subclasses__()):
    gymnasium.register(f"{made.__name__}-v0", entry_point=made)
