"""Gymnasium environments that go wrong, each in one way. Imported by every process of a run, by another name.

Each is CartPole's shape (four numbers, two actions) with episodes of 5 steps, and goes wrong after ``AFTER`` steps, or
in every process and always, unless its name says ``Once``: then one process does so once (a file is the memory).
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

AFTER = 5
Step = tuple[Any, Any, bool, bool, dict[str, Any]]


class Good(gymnasium.Env):  # type: ignore[type-arg]
    """Nothing goes wrong."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    render_mode = None

    def __init__(self) -> None:
        self.n = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.see(), {}

    def see(self) -> Any:
        """An observation."""
        return self.np_random.uniform(-1, 1, 4).astype(np.float32)

    def step(self, action: Any) -> Step:
        self.n += 1
        observation, reward, terminated, truncated, info = self.see(), 1.0, self.n % 5 == 0, False, {}
        if self.n > AFTER:
            return self.bad(observation, reward, terminated, truncated, info)
        return observation, reward, terminated, truncated, info

    def bad(self, *step: Any) -> Step:
        """What is done in place of a step after ``AFTER`` steps."""
        return step  # type: ignore[return-value]


def once() -> bool:
    """Whether nobody has been here."""
    try:
        Path(os.environ["HOSTILE_ONCE"]).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class NanReward(Good):
    def bad(self, *step: Any) -> Step:
        return step[0], float("nan"), *step[2:]


class HugeReward(Good):
    def bad(self, *step: Any) -> Step:
        return step[0], 1e30, *step[2:]


class TextReward(Good):
    def bad(self, *step: Any) -> Step:
        return step[0], "much", *step[2:]


class NanObservation(Good):
    def bad(self, *step: Any) -> Step:
        return np.full(4, np.nan, np.float32), *step[1:]


class WrongShape(Good):
    def bad(self, *step: Any) -> Step:
        return np.zeros(7, np.float32), *step[1:]


class WrongDtype(Good):
    def bad(self, *step: Any) -> Step:
        return np.array(["a", "b", "c", "d"]), *step[1:]


class NoObservation(Good):
    def bad(self, *step: Any) -> Step:
        return None, *step[1:]


class RaisesInReset(Good):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.n > AFTER:
            raise RuntimeError("the reset is broken")
        return super().reset(seed=seed, options=options)


class RaisesInStep(Good):
    def bad(self, *step: Any) -> Step:
        raise RuntimeError("the step is broken")


class RaisesInStepOnce(Good):
    def bad(self, *step: Any) -> Step:
        if once():
            raise RuntimeError("the step is broken")
        return super().bad(*step)


class NanRewardOnce(Good):
    def bad(self, *step: Any) -> Step:
        return (step[0], float("nan"), *step[2:]) if once() else super().bad(*step)


class ExitsOnce(Good):
    def bad(self, *step: Any) -> Step:
        if once():
            os._exit(3)
        return super().bad(*step)


class RaisesSystemExit(Good):
    def bad(self, *step: Any) -> Step:
        sys.exit(0)


class Exits0(Good):
    def bad(self, *step: Any) -> Step:
        os._exit(0)


class Exits3(Good):
    def bad(self, *step: Any) -> Step:
        os._exit(3)


class Segfault(Good):
    def bad(self, *step: Any) -> Step:
        ctypes.string_at(0)
        return super().bad(*step)


class Endless(Good):
    def bad(self, *step: Any) -> Step:
        while True:
            time.sleep(1.0)


class EndlessBusy(Good):
    def bad(self, *step: Any) -> Step:
        return step[0], sum(iter(int, 1)), *step[2:]


class RaisesInInit(Good):
    def __init__(self) -> None:
        raise RuntimeError("the constructor is broken")


class Leaks(Good):
    kept: list[bytes] = []  # noqa: RUF012

    def bad(self, *step: Any) -> Step:
        self.kept.append(os.urandom(50_000))
        return super().bad(*step)


class HugeInfo(Good):
    def bad(self, *step: Any) -> Step:
        return *step[:4], {str(i): np.zeros(1000) for i in range(300)}  # type: ignore[return-value]


class Garbage(Good):
    def bad(self, *step: Any) -> Step:
        for fd in (1, 2):
            os.write(fd, b"\xff\xfe\x00\x1b[2J\x9b" * 20 + b"\n")
        return super().bad(*step)


class ClosesFiles(Good):
    closed = False

    def bad(self, *step: Any) -> Step:
        if not ClosesFiles.closed:
            os.closerange(0, 3)
        ClosesFiles.closed = True
        return super().bad(*step)


FAULTS = [c for c in list(globals().values()) if isinstance(c, type) and issubclass(c, Good)]
for fault in FAULTS:
    gymnasium.register(f"Hostile{fault.__name__}-v0", entry_point=fault)
