"""A game that two cores can learn from pixels: catch what falls. ``task.env = tests.tasks.pixel_envs:Catch-v0``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

#: Squares a side of the field, and pixels a side of a square.
SQUARES, PIXELS = 7, 6


class Catch(gymnasium.Env):
    """A ball falls straight down, one square a step; the paddle below moves left, stays or moves right. 1 for a catch,
    -1 for a miss, at the end of each episode of six steps. One frame shows all there is to know, uint8 [42, 42]."""

    observation_space = gymnasium.spaces.Box(0, 255, (SQUARES * PIXELS, SQUARES * PIXELS), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._row, self._column, self._paddle = 0, int(self.np_random.integers(SQUARES)), SQUARES // 2
        return self._frame(), {}

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._paddle = int(np.clip(self._paddle + action - 1, 0, SQUARES - 1))
        self._row += 1
        ended = self._row == SQUARES - 1
        reward = (1.0 if self._column == self._paddle else -1.0) if ended else 0.0
        return self._frame(), reward, ended, False, {}

    def _frame(self) -> Any:
        field = np.zeros((SQUARES, SQUARES), np.uint8)
        field[self._row, self._column] = 255
        field[SQUARES - 1, self._paddle] = 128
        return np.kron(field, np.ones((PIXELS, PIXELS), np.uint8))


gymnasium.register("Catch-v0", Catch)
