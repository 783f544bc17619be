"""Running normalisers of observations and returns: buffers of the policy, so they travel and are saved with it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from headrace.algorithms.acting import OBS_CLIP
from headrace.common.types import Array


class RunningNorm:
    """Running mean and variance per feature (Chan et al. 1979, parallel update), in float64."""

    def __init__(self, features: int) -> None:
        self.mean = np.zeros(features)
        self.var = np.ones(features)
        self.count = 0.0

    def update(self, rows: Array) -> None:
        """Fold in ``rows`` [N, features]."""
        mean, var, n = rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64), len(rows)
        delta, total = mean - self.mean, self.count + n
        self.var = (self.var * self.count + var * n + delta**2 * self.count * n / total) / total
        self.mean = self.mean + delta * n / total
        self.count = total

    @property
    def scale(self) -> Array:
        """1 / standard deviation, float64 [features]; 1 for features that never moved."""
        return 1.0 / np.sqrt(np.where(self.var < 1e-8, 1.0, self.var))

    def tensors(self, name: str) -> dict[str, Array]:
        return {f"{name}.mean": self.mean, f"{name}.var": self.var, f"{name}.count": np.array([self.count])}

    def restore(self, name: str, tensors: Mapping[str, Array]) -> None:
        self.mean, self.var = tensors[f"{name}.mean"].copy(), tensors[f"{name}.var"].copy()
        self.count = float(tensors[f"{name}.count"][0])


class ObsNorm(RunningNorm):
    """Observations as the networks take them: normalised as the actors do."""

    def __init__(self, features: int, enabled: bool, device: str) -> None:
        super().__init__(features)
        self._enabled, self._device = enabled, device

    def update(self, rows: Array) -> None:
        if self._enabled:
            super().update(rows)

    def acting(self) -> dict[str, Array]:
        """The tensors an actor normalises with; none where it is switched off."""
        if not self._enabled:
            return {}
        return {"obs_mean": self.mean.astype(np.float32), "obs_scale": self.scale.astype(np.float32)}

    def inputs(self, obs: Array) -> Tensor:
        """``obs`` [..., F] -> [rows, F]."""
        rows = obs.reshape(-1, len(self.mean)).astype(np.float32, copy=False)
        if shift := self.acting():
            rows = np.clip((rows - shift["obs_mean"]) * shift["obs_scale"], -OBS_CLIP, OBS_CLIP)
        return torch.from_numpy(np.ascontiguousarray(rows)).to(self._device)
