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


class Keeper(gymnasium.Env):
    """A ball falls aslant through a field of seven places; below, a keeper leaps to where it will come down: once, from
    the second frame on, and no later than the third, since a leap takes two of the ball's four steps. 1 for a catch, -1
    for a miss, at the end.

    The field is a ring: what leaves on one side comes back on the other. The ball begins in any place and drifts one to
    three places a step to either side, one drift as likely as another. So from wherever it is it comes down in each of
    the other places with the same chance: a single frame catches one ball in six at best, since nothing that the keeper
    does before he leaps is seen in a frame. Two frames show the drift, and catch all. At random one in seven is caught.
    Actions: wait, or leap to one of seven places. Frames are uint8 [84, 84]."""

    PLACES, SIDE, FALLS, DROP = 7, 12, 4, 18
    DRIFTS = (-3, -2, -1, 1, 2, 3)

    observation_space = gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
    action_space = gymnasium.spaces.Discrete(1 + PLACES)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._ball, self._drift = int(self.np_random.integers(self.PLACES)), int(self.np_random.choice(self.DRIFTS))
        self._fallen, self._keeper, self._leapt = 0, self.PLACES // 2, False
        return self._frame(), {}

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if action and not self._leapt and self._fallen in (1, 2):
            self._keeper, self._leapt = int(action) - 1, True
        self._ball, self._fallen = (self._ball + self._drift) % self.PLACES, self._fallen + 1
        ended = self._fallen == self.FALLS
        caught = 1.0 if self._ball == self._keeper else -1.0
        return self._frame(), caught if ended else 0.0, ended, False, {}

    def _frame(self) -> Any:
        frame = np.zeros((84, 84), np.uint8)
        top, left, keeper = self._fallen * self.DROP, self._ball * self.SIDE, self._keeper * self.SIDE
        frame[-4:, keeper : keeper + self.SIDE] = 128
        frame[top : top + self.SIDE, left : left + self.SIDE] = 255
        return frame


gymnasium.register("Keeper-v0", Keeper)
