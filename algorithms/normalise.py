"""Running normalisers of observations and returns: modules whose buffers are saved, and travel, with the policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headrace.algorithms.acting import OBS_CLIP
from headrace.common.types import Array, Spaces


class RunningNorm(nn.Module):
    """Mean and variance per feature of everything it was shown (Chan et al. 1979, parallel update), in float64; what
    they come to, ``shift`` and ``scale``, in float32. A feature that never moved is not scaled."""

    mean: Tensor
    var: Tensor
    count: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("var", torch.ones(features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Fold in ``rows`` [N, features]."""
        var, mean = torch.var_mean(rows.double(), dim=0, unbiased=False)
        delta, total = mean - self.mean, self.count + len(rows)
        spread = self.var * self.count + var * len(rows) + delta**2 * self.count * len(rows) / total
        self.var.copy_(spread / total)
        self.mean.add_(delta * len(rows) / total)
        self.count.copy_(total)
        self.shift.copy_(self.mean)
        self.scale.copy_(torch.where(self.var < 1e-8, 1.0, self.var).rsqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Normalised ``x`` [..., features]."""
        return (x - self.shift) * self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """The opposite of :meth:`forward`."""
        return x / self.scale + self.shift


class ObsNorm(RunningNorm):
    """Of observations, as the actors do it (acting.py): vectors become float32 [..., features], are shifted, scaled and
    cut off beyond OBS_CLIP (or not, where that is switched off); images stay as they are."""

    def __init__(self, spaces: Spaces, enabled: bool) -> None:
        enabled &= spaces.is_vector
        super().__init__(spaces.features if spaces.is_vector else 1)
        self._enabled, self._vector, self._scalar = enabled, spaces.is_vector, not spaces.obs_shape

    def update(self, rows: Tensor) -> None:
        if self._enabled:
            super().update(self._features(rows))

    def forward(self, x: Tensor) -> Tensor:
        if not self._vector:
            return x
        x = self._features(x)
        return super().forward(x).clamp(-OBS_CLIP, OBS_CLIP) if self._enabled else x

    def acting(self) -> dict[str, Array]:
        """The tensors an actor normalises with; none where it is switched off."""
        if not self._enabled:
            return {}
        tensors = {"obs_mean": self.shift, "obs_scale": self.scale}
        return {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}

    def _features(self, x: Tensor) -> Tensor:
        x = x[..., None] if self._scalar else x
        return x if x.dtype == torch.float32 else x.float()
