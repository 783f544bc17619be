"""What PPO and its kin have in common: epochs of shuffled minibatches, and a step size that falls linearly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.common import named
from headrace.common.types import Array


def linear(start: float, end: float, fraction: float) -> float:
    """From ``start`` at fraction 0 to ``end`` at fraction 1."""
    return start + (end - start) * fraction


@dataclass(frozen=True)
class Samples:
    """What minibatches are made of: the rows ``chosen`` (int64 [K]) along ``axis`` of ``tensors``, or of such by name,
    ``minibatch`` at a time."""

    tensors: Sequence[Any]
    chosen: Array
    minibatch: int
    axis: int = 0


def shuffled(rng: np.random.Generator, samples: Samples) -> Iterator[tuple[list[Any], bool]]:
    """One pass in random order: minibatches, and whether it is the last one. What does not fill a minibatch sits the
    pass out; fewer samples than one are one."""
    import torch

    tensors, chosen, axis = samples.tensors, samples.chosen, samples.axis
    size = min(samples.minibatch, len(chosen))
    order = torch.from_numpy(rng.permutation(chosen)).to(tensors[-1].device)
    rows = [named.each(lambda one: one.index_select(axis, order), tensor) for tensor in tensors]
    for start in range(0, len(chosen) - size + 1, size):
        part = [named.each(lambda one, at=start: one.narrow(axis, at, size), row) for row in rows]
        yield part, start + 2 * size > len(chosen)
