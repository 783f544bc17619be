"""What each peer has taken and not delivered: so that one that takes leases under ever new names and delivers nothing
cannot have them all. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict

#: Leases given up that are remembered against their peers, and for how long.
MAX_UNDELIVERED, FORGET_S = 4096, 600.0


class Shares:
    """Counts leases by peer: those that are out, and those given up that never came."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()
        self._undelivered: OrderedDict[int, tuple[str, float]] = OrderedDict()  # lease -> its peer, given up when

    def of(self, peer: str) -> int:
        return self._of[peer]

    def take(self, number: int, peer: str) -> None:
        """A lease is out. (One given up before that is there after all counts once.)"""
        self.came(number)
        self._of[peer] += 1

    def give_back(self, peer: str) -> None:
        """A lease is out no more."""
        self._of[peer] -= 1
        if not self._of[peer]:
            del self._of[peer]

    def owe(self, number: int, peer: str, now_s: float) -> None:
        """A lease that was out is given up, and goes on counting."""
        self._undelivered[number] = (peer, now_s)
        if len(self._undelivered) > MAX_UNDELIVERED:
            self._drop_oldest()

    def came(self, number: int) -> None:
        """A fragment came; if its lease had been given up, that is forgiven."""
        if number in self._undelivered:
            self.give_back(self._undelivered.pop(number)[0])

    def owed(self) -> list[int]:
        return list(self._undelivered)

    def forget(self, now_s: float) -> None:
        while self._undelivered and now_s - next(iter(self._undelivered.values()))[1] >= FORGET_S:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.give_back(self._undelivered.popitem(last=False)[1][0])
