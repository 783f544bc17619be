"""A set of lease numbers that stays small: runs of consecutive numbers, merged as they meet.

What a learner has used up is nearly an unbroken run from 0; the holes are what is under way, and now and then a lease
that died with its actor. So the whole set fits every message to the parameter server, and every checkpoint.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

#: A run of numbers: the first, and one beyond the last.
Run = tuple[int, int]


class LeaseSet:
    """Numbers from 0 on, as at most ``max_runs`` runs. Beyond that the holes between the two lowest are closed: leases
    given up so long ago will not come any more. Not for several threads at once."""

    def __init__(self, runs: Iterable[Run] = (), max_runs: int = 1024) -> None:
        self._max_runs = max_runs
        self._firsts: list[int] = []
        self._ends: list[int] = []
        for first, end in sorted(runs):
            if self._ends and first <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            elif first < end:
                self._firsts.append(first)
                self._ends.append(end)
        self._bound()

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number < self._ends[at]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeaseSet) and self.runs == other.runs

    __hash__ = None  # type: ignore[assignment]

    @property
    def runs(self) -> tuple[Run, ...]:
        """Lowest first, never touching each other."""
        return tuple(zip(self._firsts, self._ends, strict=True))

    def add(self, number: int) -> None:
        at = bisect_right(self._firsts, number)  # the run after the number; the one before it is at - 1
        if at and number < self._ends[at - 1]:
            return
        joins_before = at > 0 and self._ends[at - 1] == number
        joins_after = at < len(self._firsts) and self._firsts[at] == number + 1
        if joins_before and joins_after:
            self._ends[at - 1] = self._ends[at]
            del self._firsts[at], self._ends[at]
        elif joins_before:
            self._ends[at - 1] += 1
        elif joins_after:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._ends.insert(at, number + 1)
            self._bound()

    def first_missing(self, start: int, step: int) -> int:
        """The lowest of start, start + step, start + 2 step, ... that is not in the set."""
        number = start
        while (at := bisect_right(self._firsts, number) - 1) >= 0 and number < self._ends[at]:
            number += step * -(-(self._ends[at] - number) // step)
        return number

    def copy(self) -> LeaseSet:
        return LeaseSet(self.runs, self._max_runs)

    def _bound(self) -> None:
        while len(self._firsts) > self._max_runs:
            del self._firsts[1], self._ends[0]
