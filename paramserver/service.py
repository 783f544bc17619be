"""The gRPC service around the store: it waits, wakes and writes; what is decided is decided in store.py and ledger.py.

    Publish: header, chunks -> Collector (digest checked) -> store.publish -> wake who waits for a lease or a version
    Next:    store.next -> a LeaseGrant at once, or wait in line -> header, then the version's chunks as they came

Messages are bytes on both sides (no serialisers), so a chunk is never built or copied here. A stream that is slow holds
the version it is being sent and nothing else: there is no queue per subscriber, the next version it asks for is the
newest. One event loop, one thread: nothing here is locked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from headrace.common.metrics import Metrics
from headrace.common.weights.base import REPORTED_LEASES
from headrace.common.weights.chunks import Blob, Collector
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver.answers import Context, answer_errors, ledger_state, machine, progress, state
from headrace.paramserver.line import Line
from headrace.paramserver.options import Options
from headrace.paramserver.slots import Slots
from headrace.paramserver.store import LeaseGrant, LeaseRequest, Store, Version, Writer

SERVICE = "headrace.v1.ParamServer"


class Service:
    """The six calls. ``on_first_weights`` is called once, when there is something to serve."""

    def __init__(
        self,
        store: Store[Blob],
        options: Options,
        metrics: Metrics,
        on_first_weights: Callable[[], Any] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._options, self._metrics, self._clock = store, options, metrics, clock
        self._on_first_weights = on_first_weights
        self._line = Line(store, clock)
        self._slots = Slots(options.max_subscribers, options.max_subscribers_per_host)
        self._new_version = asyncio.Event()
        self._counted = (0, 0)
        self._called_s = clock()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The calls by name, with raw bytes in and out."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Publish": grpc.stream_unary_rpc_method_handler(self.publish),
                "Admit": grpc.unary_unary_rpc_method_handler(self.admit),
                "Join": grpc.unary_unary_rpc_method_handler(self.join),
                "Next": grpc.unary_stream_rpc_method_handler(self.next),
                "Heartbeat": grpc.unary_unary_rpc_method_handler(self.heartbeat),
                "Subscribe": grpc.unary_stream_rpc_method_handler(self.subscribe),
            },
        )

    # --- the learner -----------------------------------------------------------------------------------------------

    async def publish(self, pieces: AsyncIterator[bytes], context: Context) -> bytes:
        async with answer_errors(context), asyncio.timeout(self._options.transfer_timeout_s):
            header = pb.PublishPiece.FromString(await anext(aiter(pieces), b"")).header
            writer = Writer(header.run_id, header.content.learner_epoch, header.writer)
            self._store.check_writer(writer)
            collector = Collector(header.content, self._options.max_weights_bytes)
            async for message in pieces:
                collector.add(message)
            blob = collector.blob()
            version = Version(blob.content.learner_epoch, blob.content.version, blob.content.digest, blob)
            known = ledger_state(header.ledger) if header.HasField("ledger") else None
            first = self._store.current is None
            if self._store.publish(writer, version, progress(header.progress), known, self._clock()):
                self._wake_followers()
            if first:
                self._on_first_weights()
            self._line.serve(everybody=first)
            self._tell_if_finished()
            return self._state(header.heard_lease)

    async def admit(self, message: bytes, context: Context) -> bytes:
        async with answer_errors(context):
            request = pb.AdmitRequest.FromString(message)
            told = progress(request.progress) if request.HasField("progress") else None
            writer = Writer(request.run_id, request.learner_epoch, request.writer)
            self._store.admit(writer, told, self._clock())
            self._line.serve()
            self._tell_if_finished()
            return self._state(request.heard_lease)

    # --- actors and evaluators -------------------------------------------------------------------------------------

    async def join(self, message: bytes, context: Context) -> bytes:
        async with answer_errors(context):
            request = pb.JoinRequest.FromString(message)
            self._store.check_run(request.run_id)
            ledger, peer = self._store.ledger, machine(context)
            given = ledger.join(request.workers, request.incarnation, self._clock(), peer)
            reply = pb.JoinReply(actor_id=given, of_workers=ledger.lockstep, finished=self._store.finished)
            return reply.SerializeToString()

    async def heartbeat(self, message: bytes, context: Context) -> bytes:
        async with answer_errors(context):
            request = pb.HeartbeatRequest.FromString(message)
            self._store.check_run(request.run_id)
            received = tuple(request.received[-REPORTED_LEASES:])
            who = (request.actor_id, request.incarnation, self._clock())
            self._store.ledger.beat(*who, received, request.leaving)
            if request.leaving:
                self._line.serve()
            return pb.HeartbeatReply().SerializeToString()

    async def next(self, message: bytes, context: Context) -> None:
        async with answer_errors(context):
            request = pb.NextRequest.FromString(message)
            received = tuple(request.received[-REPORTED_LEASES:])
            have = (request.have_epoch, request.have_version)
            who = (request.run_id, request.actor_id, request.incarnation)
            ask = LeaseRequest(*who, received, have, machine(context))
            with self._subscriber(context):
                grant = await self._lease(ask, min(request.timeout_ms / 1e3, self._options.max_poll_s))
                header = pb.Header(granted=grant is not None, finished=self._store.finished)
                if grant is not None:
                    header.lease, header.learner_epoch = grant.lease, grant.learner_epoch
                await self._write(context, header, grant.version if grant else None, have)

    async def subscribe(self, message: bytes, context: Context) -> None:
        async with answer_errors(context):
            request = pb.SubscribeRequest.FromString(message)
            self._store.check_run(request.run_id)
            have = (request.have_epoch, request.have_version)
            with self._subscriber(context):
                while True:
                    version = self._store.newer_than(have)
                    if version is None:
                        self._line.raise_if_closed()
                        if self._store.finished:
                            await context.write(pb.Piece(header=pb.Header(finished=True)).SerializeToString())
                            return
                        await self._new_version.wait()
                        continue
                    await self._write(context, pb.Header(learner_epoch=version.learner_epoch), version, have)
                    have = version.order

    async def _lease(self, ask: LeaseRequest, timeout_s: float) -> LeaseGrant[Blob] | None:
        grant = self._store.next(ask, self._clock())
        self._line.serve()  # a fragment put by this actor may have been what others wait for
        if grant is not None or timeout_s <= 0 or self._store.finished:
            return grant
        return await self._line.wait(ask, timeout_s)

    def _tell_if_finished(self) -> None:
        if self._store.finished:
            self._called_s = self._clock()
            self._line.send_home()
            self._wake_followers()

    def _wake_followers(self) -> None:
        self._new_version.set()
        self._new_version = asyncio.Event()

    async def _write(
        self, context: Context, header: pb.Header, version: Version[Blob] | None, have: tuple[int, int]
    ) -> None:
        if version is None:
            await context.write(pb.Piece(header=header).SerializeToString())
            return
        header.content.CopyFrom(version.content.content)
        if have[0] == version.learner_epoch and have[1] >= 0:
            self._metrics.inc("weights_skipped_versions_total", version.number - have[1] - 1)
        async with asyncio.timeout(self._options.transfer_timeout_s):
            await context.write(pb.Piece(header=header).SerializeToString())
            for chunk in version.content.messages:
                await context.write(chunk)
        self._metrics.inc("weights_bytes_total", version.content.content.total_bytes)

    @contextmanager
    def _subscriber(self, context: Context) -> Iterator[None]:
        with self._slots.one(machine(context)):
            try:
                yield
            finally:
                self._called_s = self._clock()

    # --- upkeep ----------------------------------------------------------------------------------------------------

    @property
    def told_the_end(self) -> bool:
        """Finished, and nobody has called for as long as anybody would wait to call again."""
        return self._store.finished and self._clock() - self._called_s >= self._options.farewell_s

    async def tick(self, every_s: float, turned: Callable[[], None]) -> None:
        """Expire leases, serve who waits, show the gauges, say so by ``turned``; until cancelled."""
        while True:
            self._store.ledger.expire(self._clock())
            self._line.serve()
            self.report()
            turned()
            await asyncio.sleep(every_s)

    def drain(self) -> None:
        """Send away whoever waits; transfers under way go on."""
        self._line.close()
        self._new_version.set()

    def report(self) -> None:
        """Bring the metrics up to date."""
        ledger, current, (issued, expired) = self._store.ledger, self._store.current, self._counted
        self._metrics.inc("leases_issued_total", ledger.issued_total - issued)
        self._metrics.inc("leases_expired_total", ledger.expired_total - expired)
        self._counted = (ledger.issued_total, ledger.expired_total)
        self._metrics.set("leases_admit_until", ledger.admit_until)
        self._metrics.set("leases_out", len(ledger.out))
        waited_for, now_s = ledger.waited_for(), self._clock()
        self._metrics.set("lease_oldest_worker", -1 if waited_for is None else waited_for.actor_id)
        self._metrics.set("lease_oldest_seconds", 0.0 if waited_for is None else now_s - waited_for.since_s)
        self._metrics.set("lease_oldest_silent_seconds", 0.0 if waited_for is None else now_s - waited_for.heard_s)
        self._metrics.set("weights_subscribers", self._slots.taken)
        self._metrics.set("weights_version", current.number if current else -1)

    def _state(self, heard_lease: int) -> bytes:
        """In lockstep all of it: there a number may go to another life of its worker."""
        ledger = self._store.ledger
        return state(self._store.current, ledger.state(0 if ledger.lockstep else heard_lease))
