"""What PPO and its kin have in common: epochs of shuffled minibatches, and a step size that falls linearly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.common import named
from headrace.common.types import Array


def linear(start: float, end: float, fraction: float) -> float:
    """From ``start`` at fraction 0 to ``end`` at fraction 1."""
    return start + (end - start) * fraction


def shuffled(
    rng: np.random.Generator, chosen: Array, size: int, tensors: tuple[Any, ...]
) -> Iterator[tuple[list[Any], bool]]:
    """One pass in random order over the rows ``chosen`` (int64 [K]) of ``tensors`` [N, ...], or of such by name:
    minibatches of ``size`` rows, and whether it is the last one. What does not fill a minibatch sits the pass out; K
    below ``size`` are one."""
    import torch

    size = min(size, len(chosen))
    order = torch.from_numpy(rng.permutation(chosen)).to(tensors[-1].device)
    rows = [named.each(lambda one: one.index_select(0, order), tensor) for tensor in tensors]
    for start in range(0, len(chosen) - size + 1, size):
        yield [named.rows(row, slice(start, start + size)) for row in rows], start + 2 * size > len(chosen)
