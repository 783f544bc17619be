"""The gRPC service: it waits, wakes and writes; what is decided is decided in store.py and ledger.py.

    Publish: header, chunks -> Collector (digest checked) -> store.publish -> wake who waits for a lease or a version
    Next:    a lease (leases.py), then the version it names -> header, then the version's chunks as they came

Messages are bytes on both sides (no serialisers), so a chunk is never built or copied here. One event loop, one thread:
nothing here is locked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from headrace.common.metrics import Metrics
from headrace.common.weights.chunks import Blob, Collector
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver.answers import Context, answer_errors, ledger_state, machine, progress, state
from headrace.paramserver.broadcast import Broadcast
from headrace.paramserver.leases import Leases, LedgerLeases
from headrace.paramserver.options import Options
from headrace.paramserver.relayed import answer_relay
from headrace.paramserver.store import Store, Version, Versions, Writer

SERVICE = "headrace.v1.ParamServer"


class Service:
    """The calls of actors and evaluators, at the root and at a relay alike."""

    def __init__(
        self,
        versions: Versions[Blob],
        leases: Leases,
        options: Options,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._versions, self._leases, self._options, self._metrics = versions, leases, options, metrics
        self._clock = clock
        self._broadcast = Broadcast(versions, options, metrics, clock)

    def handlers(self) -> grpc.GenericRpcHandler:
        """The calls by name, with raw bytes in and out."""
        return grpc.method_handlers_generic_handler(SERVICE, self.calls())

    def calls(self) -> dict[str, Any]:
        return {
            "Join": grpc.unary_unary_rpc_method_handler(self.join),
            "Next": grpc.unary_stream_rpc_method_handler(self.next),
            "Heartbeat": grpc.unary_unary_rpc_method_handler(self.heartbeat),
            "Subscribe": grpc.unary_stream_rpc_method_handler(self.subscribe),
            "Relay": grpc.stream_stream_rpc_method_handler(self.relay),
        }

    async def join(self, message: bytes, context: Context) -> bytes:
        async with answer_errors(context):
            reply = await self._leases.join(pb.JoinRequest.FromString(message), machine(context))
            return reply.SerializeToString()

    async def heartbeat(self, message: bytes, context: Context) -> bytes:
        async with answer_errors(context):
            await self._leases.heartbeat(pb.HeartbeatRequest.FromString(message), machine(context))
            return pb.HeartbeatReply().SerializeToString()

    async def next(self, message: bytes, context: Context) -> None:
        async with answer_errors(context):
            request = pb.NextRequest.FromString(message)
            until_s = self._clock() + min(request.timeout_ms / 1e3, self._options.max_poll_s)
            with self._broadcast.subscriber(context):
                header = await self._leases.next(request, machine(context))
                named = (header.learner_epoch, header.version)
                if header.granted and not await self._broadcast.reach(named, until_s):
                    header = pb.Header()  # it will be given again
                have = (request.have_epoch, request.have_version) if header.granted else None
                await self._broadcast.write(context, header, have)

    async def subscribe(self, message: bytes, context: Context) -> None:
        async with answer_errors(context):
            request = pb.SubscribeRequest.FromString(message)
            with self._broadcast.subscriber(context):
                have = (request.have_epoch, request.have_version)
                await self._broadcast.follow(context, request.run_id, have, self._leases.raise_if_closed)

    async def relay(self, messages: AsyncIterator[bytes], context: Context) -> None:
        async with answer_errors(context):
            with self._broadcast.subscriber(context):
                most = self._options.max_subscribers
                await answer_relay(self._leases, messages, context.write, machine(context), most)

    # --- upkeep ----------------------------------------------------------------------------------------------------

    @property
    def told_the_end(self) -> bool:
        """Finished, and nobody has called for as long as anybody would wait to call again."""
        return self._versions.finished and self._clock() - self._broadcast.called_s >= self._options.farewell_s

    async def tick(self, every_s: float, turned: Callable[[], None]) -> None:
        """Expire leases, serve who waits, show the gauges, say so by ``turned``; until cancelled."""
        while True:
            self._leases.tick()
            self._leases.report(self._metrics)
            self._broadcast.report()
            turned()
            await asyncio.sleep(every_s)

    def drain(self) -> None:
        """Send away whoever waits; transfers under way go on."""
        self._leases.close()
        self._broadcast.wake()


class Root(Service):
    """The service of the learner's own server. ``on_first_weights`` is called once, when there is something to
    serve."""

    def __init__(
        self,
        store: Store[Blob],
        options: Options,
        metrics: Metrics,
        on_first_weights: Callable[[], Any] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger_leases = LedgerLeases(store, options, clock)
        super().__init__(store, self._ledger_leases, options, metrics, clock)
        self._store, self._on_first_weights = store, on_first_weights

    def calls(self) -> dict[str, Any]:
        return super().calls() | {
            "Publish": grpc.stream_unary_rpc_method_handler(self.publish),
            "Admit": grpc.unary_unary_rpc_method_handler(self.admit),
        }

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
                self._broadcast.wake()
            if first:
                self._on_first_weights()
            self._ledger_leases.serve(everybody=first)
            self._tell_if_finished()
            return self._state(header.heard_lease)

    async def admit(self, message: bytes, context: Context) -> bytes:
        async with answer_errors(context):
            request = pb.AdmitRequest.FromString(message)
            told = progress(request.progress) if request.HasField("progress") else None
            writer = Writer(request.run_id, request.learner_epoch, request.writer)
            self._store.admit(writer, told, self._clock())
            self._ledger_leases.serve()
            self._tell_if_finished()
            return self._state(request.heard_lease)

    def _tell_if_finished(self) -> None:
        if self._store.finished:
            self._broadcast.called_s = self._clock()
            self._ledger_leases.send_home()
            self._broadcast.wake()

    def _state(self, heard_lease: int) -> bytes:
        """In lockstep all of it: there a number may go to another life of its worker."""
        ledger = self._store.ledger
        return state(self._store.current, ledger.state(0 if ledger.lockstep else heard_lease))
