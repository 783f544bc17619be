"""What PPO and its kin have in common: epochs of shuffled minibatches, and a step size that falls linearly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.common.types import Array

if TYPE_CHECKING:
    from torch import Tensor


def linear(start: float, end: float, fraction: float) -> float:
    """From ``start`` at fraction 0 to ``end`` at fraction 1."""
    return start + (end - start) * fraction


@dataclass(frozen=True)
class Samples:
    """What minibatches are made of: the rows ``chosen`` (int64 [K]) of ``tensors`` along ``axis``, ``minibatch`` at a
    time."""

    tensors: Sequence[Tensor]
    chosen: Array
    minibatch: int
    axis: int = 0


def shuffled(rng: np.random.Generator, samples: Samples) -> Iterator[tuple[list[Tensor], bool]]:
    """One pass in random order: minibatches, and whether it is the last one. What does not fill a minibatch sits the
    pass out; fewer samples than one are one."""
    import torch

    tensors, chosen, axis = samples.tensors, samples.chosen, samples.axis
    size = min(samples.minibatch, len(chosen))
    order = torch.from_numpy(rng.permutation(chosen)).to(tensors[0].device)
    rows = [tensor.index_select(axis, order) for tensor in tensors]
    for start in range(0, len(chosen) - size + 1, size):
        yield [row.narrow(axis, start, size) for row in rows], start + 2 * size > len(chosen)
