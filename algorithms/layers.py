"""Starting weights, and the multilayer perceptron that starts with them.

Legend: F features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}
_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: _Layer, gain: float, rng: np.random.Generator) -> _Layer:
    """Weights with orthonormal rows or columns times ``gain`` (Saxe et al. 2014), biases 0; in place."""
    layer.weight.data = orthonormal(layer.weight.shape, gain, rng)
    assert layer.bias is not None
    layer.bias.data.zero_()
    return layer


def orthonormal(shape: Sequence[int], gain: float, rng: np.random.Generator) -> Tensor:
    """A tensor of ``shape`` whose rows, or columns where there are fewer, are orthonormal, times ``gain``."""
    out, into = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.standard_normal((max(out, into), min(out, into))))
    q *= np.sign(np.diag(r))
    return torch.from_numpy((gain * (q if out >= into else q.T)).astype(np.float32)).reshape(*shape)


class MLP(nn.Module):
    """Linear layers, each with (layer norm and) an activation: [..., F] -> [..., widths[-1]]."""

    def __init__(
        self, widths: Sequence[int], rng: np.random.Generator, activation: str = "tanh", layer_norm: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(widths):
            layers.append(orthogonal(nn.Linear(into, out), math.sqrt(2), rng))
            layers += [nn.LayerNorm(out)] if layer_norm else []
            layers.append(ACTIVATIONS[activation]())
        self.stack = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stack(x)
        return out
