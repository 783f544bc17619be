"""A network of one's own for several observations: ``algorithm.network = "own_nets:Apart"`` (own_tasks.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Apart(nn.Module):
    """A linear layer for each observation, and one over all of them. Made with shapes by name, called with tensors
    [B, ...] by name; gives [B, width]."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], width: int = 64) -> None:
        super().__init__()
        self._names = list(shapes)
        self.apart = nn.ModuleList(nn.Linear(math.prod(shape), width) for shape in shapes.values())
        self.joint = nn.Linear(width * len(shapes), width)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        parts = [layer(self._scaled(x[name])).relu() for name, layer in zip(self._names, self.apart, strict=True)]
        out: Tensor = self.joint(torch.cat(parts, -1)).relu()
        return out

    @staticmethod
    def _scaled(part: Tensor) -> Tensor:
        return (part if part.is_floating_point() else part.float() / 255).flatten(1)
