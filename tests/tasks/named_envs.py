"""Environments that show several things and take several, and say which actions are allowed; and such as lie about it.

task.env = tests.tasks.named_envs:Everything
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

ACTIONS = 4


class Everything(gymnasium.Env):
    """Shows one of each kind. Of four actions two or three are allowed, and another one is an error. Episodes end after
    3 to 9 steps, half of them cut off. ``told``: how the mask is told; ``camera``: whether there is an image among it.
    """

    action_space = Discrete(ACTIONS, start=10)

    def __init__(self, told: str = "dict", camera: bool = True) -> None:
        self.told = told
        shown = {
            "arm": Dict({"angles": Box(-np.inf, np.inf, (2,), np.float64), "grip": MultiBinary(2)}),
            "dials": Tuple((MultiDiscrete([2, 4], start=[0, -1]), Box(-1, 1, (), np.float32))),
            "gear": Discrete(3, start=1),
        }
        if camera:
            shown["camera"] = Box(0, 255, (8, 8), np.uint8)
        if told == "dict":
            shown["action_mask"] = MultiBinary(ACTIONS)
        if told == "method":
            self.action_masks = lambda: self.allowed
        self.observation_space = Dict(shown)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(3, 10))
        return self.shown(), self.info()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.allowed[action - 10]:
            raise ValueError(f"{action} is not allowed")
        reward = float(action - 10 == np.flatnonzero(self.allowed)[-1])
        self.left -= 1
        cut = self.left == 0 and bool(self.np_random.integers(2))
        return self.shown(self.left == 0 and not cut), reward, self.left == 0 and not cut, cut, self.info()

    def shown(self, over: bool = False) -> Any:
        rng = self.np_random
        self.allowed = np.zeros(ACTIONS, np.int8)
        if not over:
            self.allowed[rng.permutation(ACTIONS)[: rng.integers(2, 4)]] = 1
        everything = {
            "arm": {"angles": rng.normal(3.0, 5.0, 2), "grip": rng.integers(0, 2, 2).astype(np.int8)},
            "dials": (np.array([rng.integers(2), rng.integers(4) - 1]), np.float32(rng.random())),
            "gear": int(rng.integers(1, 4)),
            "camera": rng.integers(0, 256, (8, 8)).astype(np.uint8),
            "action_mask": self.allowed.copy(),
        }
        return {name: everything[name] for name in self.observation_space}

    def info(self) -> dict[str, Any]:
        return {"action_mask": self.allowed.copy()} if self.told == "info" else {}


class Plain(gymnasium.Env):
    """Shows ``shown`` for ever, takes what is of ``taken`` and keeps it; ends after every third step."""

    def __init__(self, observation_space: Any, action_space: Any, shown: Any, mask: Any = None) -> None:
        self.observation_space, self.action_space, self.what, self.taken = observation_space, action_space, shown, []
        if mask is not None:
            self.action_masks = lambda: mask

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.count = 0
        return self.what, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.taken.append(action)
        self.count += 1
        return self.what, 1.0, self.count == 3, False, {}


def taking(space: str = "multi_discrete") -> gymnasium.Env:
    """Actions of a kind; what is shown says nothing."""
    spaces = {
        "multi_discrete": MultiDiscrete([3, 2]),
        "multi_binary": MultiBinary(3),
        "box": Box(np.array([[-1.0, 0.0], [2.0, 3.0]], np.float32), np.array([[1.0, 5.0], [4.0, 9.0]], np.float32)),
        "discrete": Discrete(3),
        "whole": Box(0, 5, (2,), np.int32),
        "unbounded": Box(-np.inf, np.inf, (2,), np.float32),
        "dict": Dict({"a": Discrete(2)}),
        "tuple": Tuple((Discrete(2),)),
    }
    return Plain(Box(-1, 1, (3,), np.float32), spaces[space], np.zeros(3, np.float32))


def lying(how: str) -> gymnasium.Env:
    """Shows what is not in its observation space, or a mask that is none."""
    no_mask, two = np.zeros(2, np.int8), Discrete(2)
    box, zeros = Box(-1, 1, (3,), np.float32), np.zeros(3, np.float32)
    gears, masked = Dict({"gear": Discrete(3), "x": box}), Dict({"action_mask": MultiBinary(2), "x": box})
    made = {
        "discrete": lambda: Plain(Discrete(3), two, 3),
        "multi_discrete": lambda: Plain(MultiDiscrete([2, 4]), two, np.array([2, 0])),
        "multi_binary": lambda: Plain(MultiBinary(2), two, np.array([0, 2], np.int8)),
        "named": lambda: Plain(gears, two, {"gear": -1, "x": zeros}),
        "key": lambda: Plain(gears, two, {"x": zeros}),
        "shape": lambda: Plain(gears, two, {"gear": 1, "x": np.zeros(4, np.float32)}),
        "nothing allowed": lambda: Plain(masked, two, {"action_mask": no_mask, "x": zeros}),
        "short mask": lambda: Plain(box, two, zeros, mask=np.ones(3, bool)),
        "long mask": lambda: Plain(Dict({"action_mask": MultiBinary(3), "x": box}), two, None),
        "box mask": lambda: Plain(masked, Box(-1, 1, (2,), np.float32), None),
        "only a mask": lambda: Plain(Dict({"action_mask": MultiBinary(2)}), two, None),
        "one name": lambda: Plain(Dict({"a.b": box, "a": Dict({"b": box})}), two, None),
        "text": lambda: Plain(Dict({"x": box, "says": gymnasium.spaces.Text(5)}), two, None),
        "many": lambda: Plain(Dict({f"x{i}": box for i in range(40)}), two, {f"x{i}": zeros for i in range(40)}),
        "long": lambda: Plain(Dict({"x" * 60: box}), two, {"x" * 60: zeros}),
    }
    return made[how]()
