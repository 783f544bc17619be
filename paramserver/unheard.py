"""Leases that a former parameter server may have handed out after the learner last heard of it. Pure.

Nobody knows which, only how many there can be, which numbers they can have, and how many workers were alive. Until
``until_s`` all there can be count as begun; until each of those workers has called, too, such a fragment may be in the
making, and nothing is begun beyond what its own server let begin. A worker that names one is believed, as often as
there can be any.
"""

from __future__ import annotations

from headrace.common.weights.base import LedgerState


class Unheard:
    """``known``: how the former server stood when it was last heard; ``told_until``: admit_until, as it may have been
    told since. ``held_back``: how many leases count as begun though nobody named them yet."""

    def __init__(
        self, known: LedgerState | None = None, told_until: int = 0, numbers: range = range(0), until_s: float = 0.0
    ) -> None:
        known = known or LedgerState()
        self.held_back = max(0, known.limit - known.begun)
        self._left = max(0, told_until - known.begun)
        self._limit, self._silent = known.limit, known.workers
        self._called: set[int] = set()
        self._numbers, self._until_s = numbers, until_s

    @property
    def bound(self) -> int | None:
        """As of a fragment in the making that others wait for."""
        return self._limit if self._left and self._silent else None

    def called(self, actor_id: int) -> None:
        """A worker asks for a lease, so nothing of it is in the making."""
        if self._silent and actor_id not in self._called:
            self._called.add(actor_id)
            self._silent -= 1

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
        if now_s < self._until_s:
            return 0
        given_up, self.held_back, self._silent = self.held_back, 0, 0
        return given_up
