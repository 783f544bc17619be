"""Small environments with spaces that are no plain Box, for own_tasks.py: what one has to see or obey, the others miss.

    Cards   Discrete(16); a mask says which six cards are held: play the highest of them, or the lowest
    Signs   a Dict of a picture, which shows a column, and a switch, which says whether it is meant or its mirror image
    Dials   MultiDiscrete([6, 5]): turn both dials to what a Tuple of numbers says, or nothing is won

Ten moves an episode, 1 for each that is right.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple

MOVES = 10
CARDS, HELD = 16, 6
SIDE = 6
DIALS = (6, 5)


class _Moves(gymnasium.Env[Any, Any]):
    """Each move stands for itself: ``_shown`` makes the next one, ``_right`` says whether an action was what it asked
    for."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._moves = 0
        return self._shown(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(self._right(action))
        self._moves += 1
        return self._shown(), reward, self._moves == MOVES, False, {}

    def _shown(self) -> Any:
        raise NotImplementedError

    def _right(self, action: Any) -> bool:
        raise NotImplementedError


class Cards(_Moves):
    """A card that is not held is an error. Where the mask is hidden (``masked`` False) it ends the episode instead."""

    action_space = Discrete(CARDS)
    observation_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, masked: bool = True) -> None:
        self._masked = masked
        if masked:
            self.action_masks = lambda: self._held

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._held[action]:
            return super().step(action)
        if self._masked:
            raise ValueError(f"card {action} is not held")
        return self._shown(), 0.0, True, False, {}

    def _shown(self) -> Any:
        self._held = np.zeros(CARDS, np.int8)
        self._held[self.np_random.permutation(CARDS)[:HELD]] = 1
        self._highest = bool(self.np_random.integers(2))
        return np.array([1.0 if self._highest else -1.0], np.float32)

    def _right(self, action: Any) -> bool:
        return bool(action == np.flatnonzero(self._held)[-1 if self._highest else 0])


class Signs(_Moves):
    """``without``: what is not shown, "picture" or "switch"."""

    action_space = Discrete(SIDE)

    def __init__(self, without: str = "") -> None:
        parts = {"picture": Box(0, 255, (SIDE, SIDE), np.uint8), "panel": Dict({"switch": Discrete(2)})}
        parts.pop({"picture": "picture", "switch": "panel"}.get(without, ""), None)
        self.observation_space = Dict(parts)

    def _shown(self) -> Any:
        self._column, self._mirror = (int(self.np_random.integers(n)) for n in (SIDE, 2))
        picture = self.np_random.integers(0, 40, (SIDE, SIDE)).astype(np.uint8)
        picture[:, self._column] += 200
        shown = {"picture": picture, "panel": {"switch": self._mirror}}
        return {name: shown[name] for name in self.observation_space}

    def _right(self, action: Any) -> bool:
        return bool(action == (SIDE - 1 - self._column if self._mirror else self._column))


class Dials(_Moves):
    """``without``: which of the two numbers is not shown, 0 or 1."""

    action_space = MultiDiscrete(DIALS)

    def __init__(self, without: int | None = None) -> None:
        self._numbers = [i for i in range(len(DIALS)) if i != without]
        self.observation_space = Tuple([Discrete(DIALS[i]) for i in self._numbers])

    def _shown(self) -> Any:
        self._wanted = self.np_random.integers(0, DIALS)
        return tuple(int(self._wanted[i]) for i in self._numbers)

    def _right(self, action: Any) -> bool:
        return bool((action == self._wanted).all())
