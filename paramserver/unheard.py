"""Leases that a former parameter server may have handed out after the learner last heard of it. Pure.

Nobody knows which, only how many there can be and which numbers they can have. Until ``until_s`` all of them count as
begun; a worker that names one is believed, as often as there can be any.
"""

from __future__ import annotations


class Unheard:
    """``held_back``: how many count as begun though nobody named them yet."""

    def __init__(self, most: int = 0, numbers: range = range(0), until_s: float = 0.0) -> None:
        self.held_back = self._left = most
        self._numbers, self._until_s = numbers, until_s

    def turns_up(self, number: int) -> bool:
        """A worker names a number as its own: whether it can be. From now on it counts by itself."""
        if not self._left or number not in self._numbers:
            return False
        self._left, self.held_back = self._left - 1, max(0, self.held_back - 1)
        return True

    def covers(self, number: int) -> bool:
        """Whether nobody but its worker can have told of it."""
        return number in self._numbers

    def settle(self, now_s: float) -> int:
        """How many are given up now: their workers would have called by now."""
        given_up = self.held_back if now_s >= self._until_s else 0
        self.held_back -= given_up
        return given_up
