"""The leases that are out: *held* by a worker while its fragment is in the making, then *put* and on the way. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from headrace.paramserver.shares import Shares
from headrace.paramserver.workers import Worker

#: Fragments whose times tell the usual one.
_TIMES = 64


@dataclass(slots=True)
class Lease:
    """A lease that is out. ``limit``: admit_until when its fragment was begun. ``since_s``: held, or put, since then.
    ``peer``: where its worker called from; ``proven``: it delivered by then. ``binds``: others wait for it."""

    number: int
    worker: Worker
    limit: int
    since_s: float
    peer: str
    proven: bool
    binds: bool


@dataclass(frozen=True, slots=True)
class WaitedFor:
    """A worker whose fragment is missing: since when its lease is out, or could be; when it was last heard of."""

    actor_id: int
    since_s: float
    heard_s: float


class Outstanding:
    """A number is in ``held``, in ``put``, or in neither."""

    def __init__(self, shares: Shares) -> None:
        self.held: OrderedDict[int, Lease] = OrderedDict()  # by the time their fragments were begun
        self.put: OrderedDict[int, Lease] = OrderedDict()  # by the time they were put
        self._shares = shares
        self._took_s: deque[float] = deque(maxlen=_TIMES)

    def __len__(self) -> int:
        return len(self.held) + len(self.put)

    def __contains__(self, number: int) -> bool:
        return number in self.held or number in self.put

    def __iter__(self) -> Iterator[Lease]:
        """As they are now; they may be closed meanwhile."""
        return iter([*self.held.values(), *self.put.values()])

    def hold(self, lease: Lease) -> None:
        self.held[lease.number] = lease
        self._shares.take(lease.peer, lease.proven)

    def hold_anew(self, lease: Lease, limit: int) -> None:
        """Its fragment begins only now."""
        lease.limit = limit
        self.held.move_to_end(lease.number)

    def deliver(self, lease: Lease) -> None:
        """It is on the way."""
        self.put[lease.number] = lease
        self._shares.take(lease.peer, lease.proven)

    def close(self, lease: Lease) -> None:
        """It is out no more."""
        if self.held.pop(lease.number, None) is None:
            del self.put[lease.number]
        self._shares.give_back(lease.peer, lease.proven)

    def finished(self, lease: Lease, now_s: float) -> None:
        """A lease that was held, and whose fragment is there: so long does one take."""
        self._took_s.append(now_s - lease.since_s)

    @property
    def usual_s(self) -> float | None:
        """How long a lease is held, lately."""
        return median(self._took_s) if self._took_s else None

    @property
    def bound(self) -> int | None:
        """The limit of the oldest fragment in the making that others wait for."""
        return next((lease.limit for lease in self.held.values() if lease.binds), None)

    def held_longest(self) -> WaitedFor | None:
        """The worker whose fragment has been in the making for longest."""
        lease = min(self.held.values(), key=lambda lease: lease.since_s, default=None)
        return None if lease is None else WaitedFor(lease.worker.actor_id, lease.since_s, lease.worker.heard_s)
