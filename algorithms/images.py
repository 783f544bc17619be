"""Networks for images: convolutions, then linear layers. Bodies for networks.py.

Legend: C channels, H and W height and width, k stacked frames (frame_stack.py), whose channels stand side by side.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headrace.algorithms.layers import MLP, orthogonal


class _Images(nn.Module):
    """Convolutions, then linear layers. Images [..., C, H, W], [..., H, W, C] or [..., H, W]; or k of them,
    [..., k, H, W] as if they were channels, [..., k, C, H, W] or [..., k, H, W, C]. Whole numbers are for 0 to 255."""

    def __init__(
        self, shape: Sequence[int], convolutions: nn.Module, hidden: Sequence[int], rng: np.random.Generator
    ) -> None:
        super().__init__()
        self._lead = len(shape)
        self._channels_last = _channels_last(shape[-3:])
        self.convolutions = convolutions
        with torch.no_grad():
            flat = convolutions(torch.zeros(1, *_image(shape))).shape[1]
        self.linear = MLP([flat, *hidden], rng, "relu")

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: -self._lead]
        x = x.flatten(0, -self._lead - 1) if len(lead) != 1 else x
        x = x if x.is_floating_point() else x.float() / 255
        x = x[:, None] if self._lead == 2 else x.movedim(-1, -3) if self._channels_last else x
        x = x.flatten(1, 2) if self._lead == 4 else x
        out: Tensor = self.linear(self.convolutions(x))
        return out.reshape(*lead, -1) if len(lead) != 1 else out


class NatureCNN(_Images):
    """The three convolutions of Mnih et al. 2015 (extended data, table 1)."""

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], rng: np.random.Generator) -> None:
        channels = [_image(shape)[0], 32, 64, 64]
        layers: list[nn.Module] = []
        for (into, out), size, stride in zip(itertools.pairwise(channels), (8, 4, 3), (4, 2, 1), strict=True):
            layers += [orthogonal(nn.Conv2d(into, out, size, stride), math.sqrt(2), rng), nn.ReLU()]
        super().__init__(shape, nn.Sequential(*layers, nn.Flatten()), hidden, rng)


class ImpalaCNN(_Images):
    """The residual network of Espeholt et al. 2018 (figure 3, large)."""

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], rng: np.random.Generator) -> None:
        channels = [_image(shape)[0], 16, 32, 32]
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(channels):
            layers += [orthogonal(nn.Conv2d(into, out, 3, 1, 1), 1.0, rng), nn.MaxPool2d(3, 2, 1)]
            layers += [_Residual(out, rng), _Residual(out, rng)]
        super().__init__(shape, nn.Sequential(*layers, nn.ReLU(), nn.Flatten()), hidden, rng)


class _Residual(nn.Module):
    def __init__(self, channels: int, rng: np.random.Generator) -> None:
        super().__init__()
        first, second = (orthogonal(nn.Conv2d(channels, channels, 3, 1, 1), 1.0, rng) for _ in range(2))
        self.stack = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.stack(x)
        return out


def _channels_last(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[2] <= 4 < shape[0]


def _image(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W). Raises ValueError for what is no image."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    if len(shape) == 4:
        channels, height, width = _image(shape[1:])
        return shape[0] * channels, height, width
    if len(shape) != 3:
        raise ValueError(f"{list(shape)} is no image: [C, H, W], [H, W, C] and [H, W] are")
    return (shape[2], shape[0], shape[1]) if _channels_last(shape) else (shape[0], shape[1], shape[2])
