"""Sum tree: draw indices in proportion to their priorities, in batches.

A complete binary tree in one array: the root is node 1, the children of node i are 2i and 2i + 1, and the leaves are
the last ``leaves`` nodes. An inner node is always exactly the float64 sum of its two children, computed afresh at every
change: nothing drifts, and a tree rebuilt from its leaves equals the old one bit for bit.
"""

from __future__ import annotations

import numpy as np

from headrace.common.types import Array


def tree_nodes(capacity: int) -> int:
    """Nodes allocated for ``capacity`` leaves (node 0 is unused)."""
    return 2 << max(capacity - 1, 0).bit_length()


class SumTree:
    """Priorities of ``capacity`` slots, all 0 at first. Priorities must be finite and >= 0."""

    def __init__(self, capacity: int) -> None:
        self._nodes = np.zeros(tree_nodes(capacity))
        self._leaves = len(self._nodes) // 2

    @property
    def total(self) -> float:
        """Sum of all priorities."""
        return float(self._nodes[1])

    @property
    def nbytes(self) -> int:
        return self._nodes.nbytes

    def get(self, slots: Array) -> Array:
        """Priorities of ``slots`` (int64 [n]), float64 [n]."""
        priorities: Array = self._nodes[self._leaves + slots]
        return priorities

    def set(self, slots: Array, priorities: Array | float) -> None:
        """Set the priorities of ``slots`` (int64 [n]); where a slot is named twice the last value holds."""
        nodes = self._leaves + slots
        self._nodes[nodes] = priorities
        while nodes.size and nodes[0] > 1:  # all on one level, so all reach the root together
            nodes = nodes >> 1
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def find(self, mass: Array) -> Array:
        """The slots at which the running sum of priorities first exceeds ``mass`` (float64 [n], in [0, total)).

        A slot of priority 0 is never returned, even where rounding pushes ``mass`` to the edge of a subtree.
        """
        mass = mass.copy()
        nodes = np.ones(len(mass), np.int64)
        for _ in range(self._leaves.bit_length() - 1):
            left = 2 * nodes
            left_sum = self._nodes[left]
            right = (mass >= left_sum) & (self._nodes[left + 1] > 0.0)
            mass -= left_sum * right
            nodes = left + right
        return nodes - self._leaves
