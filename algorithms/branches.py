"""Several observations for one network: whole numbers made one-hot, all vectors side by side, a branch for each image.

    encoder = Encoder(fields, joined=True)    # {"speed": [B, 3], "gear": int64 [B]} -> [B, 3 + gears]
    body = Branches(shapes, NatureCNN, ...)   # {"front": [B, 84, 84], "speed": [B, 3]} -> [B, F]

Legend: B batch, F features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace.algorithms.base import Tensors
from headrace.algorithms.layers import MLP
from headrace.common import named
from headrace.common.types import Field


class Encoder(nn.Module):
    """From normalised observations (normalise.py) to what a network is given: float vectors and images, one tensor or
    by name; ``joined``: all of it as one vector. It passes over a mask. ``fields``: what it takes."""

    def __init__(self, fields: Mapping[str, Field], joined: bool) -> None:
        super().__init__()
        self.fields, self._joined = fields, joined
        self._as_it_is = fields.keys() == {""} and not fields[""].choices

    def extra_repr(self) -> str:
        return f"{dict(self.fields)}, joined={self._joined}"

    def forward(self, x: Tensors) -> Any:
        x = named.seen(x)
        if self._as_it_is:
            return x
        parts = named.parts(x)
        coded = {
            name: one_hot(parts[name], field) if field.choices else parts[name] for name, field in self.fields.items()
        }
        if self._joined:
            return torch.cat([*coded.values()], -1)
        return named.alone(coded)


def one_hot(x: Tensor, field: Field) -> Tensor:
    """Whole numbers [...] or [..., D] as float32 [..., sum of choices]. (By comparing, which a graph can and reads no
    value back.)"""
    x, parts, at = x if field.shape else x[..., None], [], 0
    for n, alike in itertools.groupby(field.choices):
        entries = slice(at, at := at + len(list(alike)))
        parts.append((x[..., entries, None] == torch.arange(n, dtype=x.dtype, device=x.device)).flatten(-2))
    return torch.cat(parts, -1).float()


class Branches(nn.Module):
    """A branch for each image, one for all vectors together, and a layer in which they meet: what one of them means
    may depend on another. Made with shapes by name, called with tensors [B, ...] by name; gives [B, F]."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], image: Callable[..., nn.Module], hidden: Sequence[int],
        rng: np.random.Generator, activation: str, layer_norm: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self._images = [name for name, shape in shapes.items() if len(shape) > 1]
        self._vectors = [name for name in shapes if name not in self._images]
        self.images = nn.ModuleList(image(shapes[name], hidden, rng) for name in self._images)
        numbers = sum(math.prod(shapes[name]) for name in self._vectors)
        self.vectors = MLP([numbers, *hidden], rng, activation, layer_norm) if numbers else nn.Identity()
        with torch.no_grad():
            side_by_side = self._apart({name: torch.zeros(1, *shape) for name, shape in shapes.items()}).shape[1]
        self.joint = MLP([side_by_side, *hidden[-1:]], rng, activation, layer_norm)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = self.joint(self._apart(x))
        return out

    def _apart(self, x: Mapping[str, Tensor]) -> Tensor:
        parts = [image(x[name]) for name, image in zip(self._images, self.images, strict=True)]
        if self._vectors:
            parts.append(self.vectors(torch.cat([x[name] for name in self._vectors], -1)))
        return torch.cat(parts, -1)
