"""The policy that every other is measured from: any allowed action, each as likely."""

from __future__ import annotations

import numpy as np

from headrace.algorithms.acting_inputs import laid_out, masked
from headrace.algorithms.base import PolicyOutput
from headrace.common.named import parts
from headrace.common.types import Array, Obs, Spaces, Weights


class UniformPolicy:
    """A :class:`headrace.algorithms.base.Policy` that draws from numbers of its own, also where it is asked to be
    greedy."""

    def __init__(self, spaces: Spaces, rng: np.random.Generator) -> None:
        self._action, self._vector, self._rng = spaces.action, not spaces.discrete, rng

    def load(self, weights: Weights) -> None:
        """It has none."""

    def act(self, obs: Obs, state: Array | None, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        n = len(next(iter(parts(obs).values())))
        choices = self._action.choices
        if not choices:
            return PolicyOutput(self._rng.uniform(-1, 1, (n, self._action.features)).astype(np.float32), {})
        place, there = laid_out(choices)
        scores = masked(self._rng.random((n, sum(choices))), obs)
        action = np.where(there, scores[:, place], -np.inf).argmax(axis=2)
        return PolicyOutput(action if self._vector else action[:, 0], {})
