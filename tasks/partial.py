"""Environments of which less is shown: what was left out has to be remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from headrace.common.errors import UsageError
from headrace.common.types import Array


class Partial(gymnasium.ObservationWrapper):  # type: ignore[misc]  # Gymnasium is untyped to mypy
    """Shows the numbers ``indices`` of a vector, in that order."""

    def __init__(self, env: gymnasium.Env[Any, Any], indices: Sequence[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        features = space.shape[0] if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1 else 0
        if not indices or not all(0 <= i < features for i in indices):
            raise UsageError(f"task.wrappers: Partial shows {list(indices)} of {space}: indices of a vector's numbers")
        self._indices = np.array(indices)
        self.observation_space = gymnasium.spaces.Box(space.low[self._indices], space.high[self._indices])

    def observation(self, observation: Array) -> Array:
        shown: Array = observation[self._indices]
        return shown
