"""Memory used again: pages fresh from the system cost as much as the copy into them."""

from __future__ import annotations

import sys

import numpy as np

from headrace.common.types import Array


class Buffers:
    """Gives out memory that nobody looks into any more. Keeps up to ``keep`` arrays, in use or not. For one thread;
    what looks into the memory may be dropped in any other."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._kept: list[Array] = []

    def take(self, nbytes: int) -> memoryview:
        """``nbytes`` of undefined content, free again when every view of it is gone."""
        for array in self._kept:
            # Three know it: the list, this loop, and getrefcount. A view of it would be one more.
            if array.nbytes >= nbytes and sys.getrefcount(array) == 3:
                return array.data[:nbytes]
        fresh = np.empty(nbytes, np.uint8)
        self._kept = [fresh, *self._kept[: self._keep - 1]]
        return fresh.data
