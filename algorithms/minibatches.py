"""What PPO and its kin have in common: epochs of shuffled minibatches, and a step size that falls linearly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from headrace.common.types import Array

if TYPE_CHECKING:
    from torch import Tensor


def linear(start: float, end: float, fraction: float) -> float:
    """From ``start`` at fraction 0 to ``end`` at fraction 1."""
    return start + (end - start) * fraction


def shuffled(
    rng: np.random.Generator, chosen: Array, size: int, tensors: tuple[Tensor, ...]
) -> Iterator[tuple[list[Tensor], bool]]:
    """One pass in random order over the rows ``chosen`` (int64 [K]) of ``tensors`` [N, ...]: minibatches of ``size``
    rows, and whether it is the last one. What does not fill a minibatch sits the pass out; K below ``size`` are one."""
    import torch

    size = min(size, len(chosen))
    order = torch.from_numpy(rng.permutation(chosen)).to(tensors[0].device)
    rows = [tensor.index_select(0, order) for tensor in tensors]
    for start in range(0, len(chosen) - size + 1, size):
        yield [row[start : start + size] for row in rows], start + 2 * size > len(chosen)
