"""What the learner's end knows of the server's ledger: each answer adds the leases handed out since the one before, so
that a server that is started anew can be told all that were out."""

from __future__ import annotations

from headrace.common.lease_set import LeaseSet
from headrace.common.weights.base import LedgerState, Progress
from headrace.common.wire import paramserver_pb2 as pb

#: Leases remembered as out; far more than are out at once.
MAX_OUT = 1 << 17


class KnownLedger:
    """For the publisher's worker thread alone."""

    def __init__(self) -> None:
        self._state: pb.LedgerState | None = None
        self._out: dict[int, pb.Lease] = {}

    @property
    def heard_lease(self) -> int:
        """Leases below it have been heard of."""
        return 0 if self._state is None else self._state.next_lease

    def hear(self, state: pb.LedgerState, progress: Progress) -> LedgerState:
        """Take over an answer; ``progress`` was told with the question. What the answer says, as our own record."""
        self._state = state
        self._out |= {lease.number: lease for lease in state.out}
        self._drop_spent(progress)
        out = tuple((lease.number, lease.actor_id, lease.incarnation) for lease in state.out)
        return LedgerState(state.next_lease, state.begun, state.limit, out, state.workers)

    def to_wire(self, progress: Progress) -> pb.LedgerState | None:
        """All that was heard, for a server that holds nothing; None before the first answer."""
        if self._state is None:
            return None
        self._drop_spent(progress)
        told = pb.LedgerState()
        told.CopyFrom(self._state)
        del told.out[:]
        told.out.extend(self._out.values())
        return told

    def _drop_spent(self, progress: Progress) -> None:
        spent = LeaseSet(progress.spent)
        self._out = {number: lease for number, lease in self._out.items() if number not in spent}
        while len(self._out) > MAX_OUT:
            del self._out[next(iter(self._out))]
