"""Who asks for a lease, and who answers: the root from its ledger, a relay from what its parent says (upstream.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from headrace.common.metrics import Metrics
from headrace.common.weights.base import REPORTED_LEASES
from headrace.common.weights.chunks import Blob
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver.line import Line
from headrace.paramserver.options import Options
from headrace.paramserver.store import LeaseGrant, LeaseRequest, Store


class Leases(Protocol):
    """``peer``: the machine of the actor that asks ("": not known). Each call raises what the ledger raises, and
    :class:`Busy` where the answer is not to be had now."""

    async def next(self, request: pb.NextRequest, peer: str) -> pb.Header:
        """A lease as soon as there is one, or none at the request's timeout. The header names the version that whoever
        takes the lease must have."""

    async def heartbeat(self, request: pb.HeartbeatRequest, peer: str) -> None: ...

    async def join(self, request: pb.JoinRequest, peer: str) -> pb.JoinReply: ...

    def raise_if_closed(self) -> None:
        """Raises :class:`Busy` once this server is shutting down."""

    def close(self) -> None:
        """Send away whoever waits."""

    def tick(self) -> None:
        """Upkeep, every moment."""

    def report(self, metrics: Metrics) -> None:
        """Bring the metrics up to date."""


class LedgerLeases:
    """The root's, from ``store``; ``serve`` is to be called whenever there may be leases to give."""

    def __init__(self, store: Store[Blob], options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._max_poll_s, self._clock = store, options.max_poll_s, clock
        self._line = Line(store, clock)
        self._counted = (0, 0)

    async def next(self, request: pb.NextRequest, peer: str) -> pb.Header:
        received = tuple(request.received[-REPORTED_LEASES:])
        who = (request.run_id, request.actor_id, request.incarnation)
        ask = LeaseRequest(*who, received, (request.have_epoch, request.have_version), peer)
        grant = await self._grant(ask, min(request.timeout_ms / 1e3, self._max_poll_s))
        header = pb.Header(granted=grant is not None, finished=self._store.finished)
        if grant is not None and (current := self._store.current) is not None:
            header.lease, header.learner_epoch, header.version = grant.lease, grant.learner_epoch, current.number
        return header

    async def heartbeat(self, request: pb.HeartbeatRequest, peer: str) -> None:
        self._store.check_run(request.run_id)
        received = tuple(request.received[-REPORTED_LEASES:])
        self._store.ledger.beat(request.actor_id, request.incarnation, self._clock(), received, request.leaving)
        if request.leaving:
            self._line.serve()

    async def join(self, request: pb.JoinRequest, peer: str) -> pb.JoinReply:
        self._store.check_run(request.run_id)
        ledger = self._store.ledger
        given = ledger.join(request.workers, request.incarnation, self._clock(), peer)
        return pb.JoinReply(actor_id=given, of_workers=ledger.lockstep, finished=self._store.finished)

    def serve(self, everybody: bool = False) -> None:
        """See :meth:`Line.serve`."""
        self._line.serve(everybody)

    def send_home(self) -> None:
        """There will be no more leases."""
        self._line.send_home()

    def raise_if_closed(self) -> None:
        self._line.raise_if_closed()

    def close(self) -> None:
        self._line.close()

    def tick(self) -> None:
        self._store.ledger.expire(self._clock())
        self._line.serve()

    def report(self, metrics: Metrics) -> None:
        ledger, (issued, expired) = self._store.ledger, self._counted
        metrics.inc("leases_issued_total", ledger.issued_total - issued)
        metrics.inc("leases_expired_total", ledger.expired_total - expired)
        self._counted = (ledger.issued_total, ledger.expired_total)
        metrics.set("leases_admit_until", ledger.admit_until)
        metrics.set("leases_out", len(ledger.out))
        waited_for, now_s = ledger.waited_for(), self._clock()
        metrics.set("lease_oldest_worker", -1 if waited_for is None else waited_for.actor_id)
        metrics.set("lease_oldest_seconds", 0.0 if waited_for is None else now_s - waited_for.since_s)
        metrics.set("lease_oldest_silent_seconds", 0.0 if waited_for is None else now_s - waited_for.heard_s)

    async def _grant(self, ask: LeaseRequest, timeout_s: float) -> LeaseGrant[Blob] | None:
        grant = self._store.next(ask, self._clock())
        self._line.serve()  # a fragment put by this actor may have been what others wait for
        if grant is not None or timeout_s <= 0 or self._store.finished:
            return grant
        return await self._line.wait(ask, timeout_s)
