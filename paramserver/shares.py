"""How many leases are out, and with whom: so that one peer, or those of whom nothing ever came, cannot have them all.

    a peer                       has ``most`` undelivered at once while others call as well
    workers not proven yet       have ``most`` all together while others deliver, and their peer half of that while
                                 others call as well

So whoever delivers always has the rest. Nothing is held against anybody for longer than a lease is out. Pure.
"""

from __future__ import annotations

from collections import Counter


class Shares:
    """Counts leases by peer; an empty peer is one that is not known. ``most`` 0: no bounds."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._out: Counter[str] = Counter()
        self._unproven: Counter[str] = Counter()

    def take(self, peer: str, proven: bool) -> None:
        """A lease is out."""
        self._out[peer] += 1
        if not proven:
            self._unproven[peer] += 1

    def give_back(self, peer: str, proven: bool) -> None:
        """A lease is out no more."""
        for count in (self._out,) if proven else (self._out, self._unproven):
            count[peer] -= 1
            if not count[peer]:
                del count[peer]

    def allow(self, peer: str, proven: bool, *, others_call: bool, others_deliver: bool) -> bool:
        """Whether a worker of ``peer`` may have one more."""
        if not self._most:
            return True
        crowded = bool(peer) and others_call
        if crowded and self._out[peer] >= self._most:
            return False
        if proven or not others_deliver:
            return True
        half = max(1, self._most // 2)
        return self._unproven.total() < self._most and not (crowded and self._unproven[peer] >= half)
