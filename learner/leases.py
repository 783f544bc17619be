"""Is a fragment's lease its own? What the learner knows of leases, by the parameter server's word alone.

A lease buys one fragment, of the worker life it was issued to; whatever else a record claims moves nothing. Fragments
may be early: a lease that the server was not heard to issue is judged only after one more answer of it. Those of a
former learner's epoch, put before this one began, are welcome as far as the staleness bound lets them in; those that a
server issued just before it died are known once their worker has called its successor, and wait for that.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from headrace.common.errors import Rejected
from headrace.common.lease_set import LeaseSet
from headrace.common.types import Trajectory
from headrace.common.weights.base import LedgerState

#: Leases out that are remembered; far more than are out at once.
MAX_OUT = 1 << 17
#: A server that was started anew skips numbers: by a leap of so many it is known.
LEAP = 1 << 31
#: How long workers have to tell a new server what its predecessor gave them.
SETTLE_S = 10.0


class Leases:
    """``epoch``: this learner's. ``issued``: one above the highest lease known to be issued (a checkpoint's; 0 at the
    start). ``spent``: leases whose fragments came. Not for several threads at once."""

    def __init__(
        self, epoch: int, issued: int = 0, spent: LeaseSet | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.issued, self.spent = issued, spent or LeaseSet()
        self.spent_total = sum(end - first for first, end in self.spent)
        self.ticket = 0  # of the latest answer heard
        self._epoch, self._clock = epoch, clock
        self._holders: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._leapt, self._settled_s = range(0), 0.0

    def hear(self, state: LedgerState, ticket: int) -> None:
        """An answer of the server; ``ticket``: of the latest question that it surely answers."""
        self.ticket = max(self.ticket, ticket)
        if 0 < self.issued <= state.next_lease - LEAP:
            self._leapt, self._settled_s = range(self.issued, state.next_lease), self._clock() + SETTLE_S
        self.issued = max(self.issued, state.next_lease)
        for number, actor_id, incarnation in state.out:
            if number not in self.spent:
                self._holders[number] = (actor_id, incarnation)
                self._holders.move_to_end(number)
        while len(self._holders) > MAX_OUT:
            self._holders.popitem(last=False)

    def judge(self, trajectory: Trajectory, asked: int) -> bool:
        """Whether the fragment has its lease; False: not known yet, judge it again after the next answer.

        ``asked``: ticket of a question that was put after the fragment came. Raises :class:`Rejected` (lease, range,
        duplicate) for one that has not.
        """
        number, epoch = trajectory.lease, trajectory.learner_epoch
        if epoch > self._epoch:
            raise Rejected("range", f"of learner epoch {epoch}; this is epoch {self._epoch}")
        if number < 0:
            raise Rejected("range", f"lease {number}; they begin at 0")
        if number in self.spent:
            raise Rejected("duplicate", f"the fragment of lease {number} came before")
        holder = self._holders.get(number)
        if holder == (trajectory.actor_id, trajectory.incarnation):
            return True
        if self.ticket < asked:  # in lockstep a number may just have been given to its worker's next life
            return False
        if holder is not None:
            raise Rejected(
                "lease", f"lease {number} is of actor {holder[0]}, in another life than {trajectory.actor_id}'s"
            )
        if number >= self.issued:
            raise Rejected("lease", f"lease {number} was never issued; the next one is {self.issued}")
        if epoch < self._epoch:
            return True
        if number in self._leapt and self._clock() < self._settled_s:
            return False
        raise Rejected("lease", f"lease {number} is not out: given up, or never issued")

    def spend(self, number: int) -> None:
        """A fragment came for this lease: there will be no other."""
        self.spent.add(number)
        self.spent_total += 1
        self._holders.pop(number, None)
