"""Running normalisers of observations and returns: modules whose buffers are saved, and travel, with the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headrace.algorithms.acting_inputs import OBS_CLIP
from headrace.common import named
from headrace.common.types import Array, Field, Spaces


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
    cut off beyond OBS_CLIP (or not, where that is switched off); images, and what is to be one-hot, stay as they are.
    ``name``: of this one among several."""

    def __init__(self, field: Field, enabled: bool, name: str = "") -> None:
        self._name, self._scalar = name, not field.shape
        self._vector = field.is_vector and not field.choices
        self._enabled = enabled and self._vector
        super().__init__(field.features if self._vector else 1)

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
        tensors = {
            named.array_name("obs_mean", self._name): self.shift,
            named.array_name("obs_scale", self._name): self.scale,
        }
        return {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}

    def _features(self, x: Tensor) -> Tensor:
        x = x[..., None] if self._scalar else x
        return x if x.dtype == torch.float32 else x.float()


class NamedObsNorm(nn.Module):
    """An :class:`ObsNorm` for each of several observations by name; a mask stays as it is."""

    def __init__(self, spaces: Spaces, enabled: bool) -> None:
        super().__init__()
        self._names = list(spaces.seen)  # no ModuleDict: it takes no names with dots
        self.each = nn.ModuleList(ObsNorm(field, enabled, name) for name, field in spaces.seen.items())

    def update(self, rows: Mapping[str, Tensor]) -> None:
        for name, norm in self._norms():
            norm.update(rows[name])

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**x, **{name: norm(x[name]) for name, norm in self._norms()}}

    def acting(self) -> dict[str, Array]:
        return {name: tensor for _, norm in self._norms() for name, tensor in norm.acting().items()}

    def _norms(self) -> Iterator[tuple[str, Any]]:
        return zip(self._names, self.each, strict=True)


def make(spaces: Spaces, enabled: bool) -> ObsNorm | NamedObsNorm:
    """The normaliser of what an environment shows."""
    one = named.alone(spaces.obs)
    return ObsNorm(one, enabled) if isinstance(one, Field) else NamedObsNorm(spaces, enabled)
