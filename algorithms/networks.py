"""Networks an algorithm can ask for by name: plain ``torch.nn.Module``s from observations to a head's inputs.

Legend: B batch, F features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headrace.common.types import Array

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class MLP(nn.Module):
    """Linear layers with ``activation`` between them: [B, F] -> [B, widths[-1]]."""

    def __init__(
        self, widths: Sequence[int], rng: np.random.Generator, head_gain: float = 1.0, activation: str = "tanh"
    ) -> None:
        super().__init__()
        linears = [nn.Linear(into, out) for into, out in itertools.pairwise(widths)]
        gains = [math.sqrt(2)] * (len(linears) - 1) + [head_gain]
        for linear, gain in zip(linears, gains, strict=True):
            linear.weight.data = torch.from_numpy(orthogonal(linear.out_features, linear.in_features, gain, rng))
            linear.bias.data.zero_()
        between = [layer for linear in linears[:-1] for layer in (linear, ACTIVATIONS[activation]())]
        self.stack = nn.Sequential(*between, linears[-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stack(x)
        return out

    def tensors(self, net: str) -> dict[str, Array]:
        """The acting layout (algorithms/acting.py): ``{net}.{i}.weight`` [in, out] and ``{net}.{i}.bias`` [out]."""
        named = {}
        for i, linear in enumerate(layer for layer in self.stack if isinstance(layer, nn.Linear)):
            named[f"{net}.{i}.weight"] = np.ascontiguousarray(linear.weight.detach().cpu().numpy().T)
            named[f"{net}.{i}.bias"] = linear.bias.detach().cpu().numpy().copy()
        return named


class TwinQ(nn.Module):
    """Two MLPs of ``widths`` that value actions apart from each other: x [B, F], action [B, D] -> Q [2, B]."""

    def __init__(self, widths: Sequence[int], rng: np.random.Generator, activation: str) -> None:
        super().__init__()
        self.one, self.two = (MLP(widths, rng, activation=activation) for _ in range(2))

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        pairs = torch.cat([x, action], -1)
        return torch.cat([self.one(pairs), self.two(pairs)], -1).T.float()


def orthogonal(out: int, into: int, gain: float, rng: np.random.Generator) -> Array:
    """``gain`` times a matrix [out, in] with orthonormal rows or columns, float32 (Saxe et al. 2014)."""
    q, r = np.linalg.qr(rng.standard_normal((max(out, into), min(out, into))))
    q *= np.sign(np.diag(r))
    return (gain * (q if out >= into else q.T)).astype(np.float32)
