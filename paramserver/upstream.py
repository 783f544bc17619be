"""A relay's way up: versions come down from its parent, questions for leases go up and their answers come back.

    parent =Subscribe=> Collector (digest checked) -> versions -> whoever follows this relay
    actors' Next, Join, Heartbeat -> Relay, one stream for all of them -> answers, each to its own

A parent that is away, or that says nothing for too long, is left for the next of the list; what was asked meanwhile is
told to try again, and its lease is given again then (paramserver/ledger.py).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from headrace.common.errors import Rejected, UsageError
from headrace.common.metrics import Metrics
from headrace.common.waiting import Waiting
from headrace.common.weights.chunks import Blob, Collector
from headrace.common.weights.client import CHANNEL_OPTIONS, FIRST_PAUSE_S, SERVICE
from headrace.common.weights.tls import Tls
from headrace.common.weights.tokens import Token
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver.answers import Answered
from headrace.paramserver.options import Options
from headrace.paramserver.outbox import Outbox
from headrace.paramserver.store import Version, Versions
from headrace.paramserver.workers import MAX_WORKERS, Busy

#: How long a parent may take to take up a connection; an answer may be late by as much.
SLACK_S = 3.0
ASK_S = 5.0
LONGEST_PAUSE_S = 2.0
#: What trying again does not mend.
_ACCESS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
_FINAL = {*_ACCESS, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED}


@dataclass(frozen=True)
class Parents:
    """Parameter servers to follow, the preferred one first, and what this relay shows them."""

    addresses: tuple[str, ...]
    run_id: str
    token: Token = lambda: ""
    tls: Tls | None = None


class Upstream:
    """:class:`headrace.paramserver.leases.Leases` of a relay. ``run`` keeps in touch until cancelled; ``wake`` is
    called whenever ``versions`` changed."""

    def __init__(
        self,
        parents: Parents,
        versions: Versions[Blob],
        options: Options,
        metrics: Metrics,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._parents, self._versions, self._options, self._metrics, self.wake = (
            parents, versions, options, metrics, wake,
        )  # fmt: skip
        self._away = Waiting("relay", math.inf)
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[pb.RelayAnswer]] = {}
        self._outbox = Outbox[pb.RelayAsk]()
        self._beats: dict[int, pb.RelayAsk] = {}  # by worker: the newest is all that counts
        self._silent = asyncio.Event()
        self._up = self._welcome = self._closed = False

    # --- what is asked from below ------------------------------------------------------------------------------------

    async def next(self, request: pb.NextRequest, peer: str) -> pb.Header:
        if self._versions.finished:
            return pb.Header(finished=True)
        timeout_s = min(request.timeout_ms / 1e3, self._options.max_poll_s)
        return (await self._ask(pb.RelayAsk(peer=peer, next=request), timeout_s)).header

    async def join(self, request: pb.JoinRequest, peer: str) -> pb.JoinReply:
        return (await self._ask(pb.RelayAsk(peer=peer, join=request), ASK_S)).joined

    async def heartbeat(self, request: pb.HeartbeatRequest, peer: str) -> None:
        """Goes up with those of all others at the next tick; a farewell goes at once."""
        ask = pb.RelayAsk(peer=peer, heartbeat=request)
        if request.leaving:
            self._beats.pop(request.actor_id, None)
            await self._ask(ask, ASK_S)
        elif len(self._beats) < MAX_WORKERS:
            self._beats[request.actor_id] = ask

    def raise_if_closed(self) -> None:
        if self._closed:
            raise Busy("shutting down")

    def close(self) -> None:
        self._closed = True
        self._drop("shutting down")

    def tick(self) -> None:
        beats, self._beats = self._beats, {}
        if self._up:
            for ask in beats.values():
                self._outbox.put(ask)

    def report(self, metrics: Metrics) -> None:
        metrics.set("relay_questions_open", len(self._open))

    async def _ask(self, ask: pb.RelayAsk, timeout_s: float) -> pb.RelayAnswer:
        self.raise_if_closed()
        if not self._up:
            raise Busy("the relay's parent is away; try again")
        ask.id = next(self._ids)
        answer = self._open[ask.id] = asyncio.get_running_loop().create_future()
        self._outbox.put(ask)
        try:
            async with asyncio.timeout(timeout_s + SLACK_S):
                given: pb.RelayAnswer = await answer
        except TimeoutError:
            self._silent.set()
            raise Busy("the relay's parent does not answer; try again") from None
        finally:
            self._open.pop(ask.id, None)
        if given.code:
            raise Answered(given.code, given.details)
        return given

    def _drop(self, why: str) -> None:
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(Busy(why))

    # --- the connection ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Raises :class:`UsageError` where a parent is there and will never have us: another run, no relay's token."""
        failures, began_s = 0, time.monotonic()
        for address in itertools.cycle(self._parents.addresses):
            try:
                await self._live(address)
            except (grpc.aio.AioRpcError, grpc.aio.UsageError, Rejected, DecodeError, TimeoutError) as error:
                self._raise_if_final(address, error)
                why = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                failures, began_s = (0, time.monotonic()) if self._up else (failures + 1, began_s)
                self._away.goes_on(began_s, f"no parent at {address}: {why or 'it does not answer'}")
            self._up = False
            self._drop("the relay's parent went away; try again")
            await asyncio.sleep(random.uniform(0.0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 8))))

    async def _live(self, address: str) -> None:
        """Until something goes wrong: raises it."""
        tls = self._parents.tls
        channel = (
            grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
            if tls is None
            else grpc.aio.secure_channel(address, tls.credentials(), CHANNEL_OPTIONS)
        )
        async with channel:
            async with asyncio.timeout(SLACK_S):
                await _connected(channel)
            call = channel.stream_stream(f"/{SERVICE}/Relay")(metadata=self._metadata)
            self._outbox = Outbox()
            self._silent.clear()
            work = (self._follow(channel), self._send(call), self._hear(call), self._deaf())
            parts = [asyncio.create_task(part) for part in work]
            try:
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
            finally:
                call.cancel()
                for part in parts:
                    part.cancel()
                await asyncio.gather(*parts, return_exceptions=True)

    async def _follow(self, channel: grpc.aio.Channel) -> None:
        """After the end of the run, look now and then for its next learner; a parent that goes home is not to be
        kept."""
        while True:
            await self._follow_once(channel)
            await asyncio.sleep(2 * self._options.farewell_s)

    async def _follow_once(self, channel: grpc.aio.Channel) -> None:
        current = self._versions.current
        epoch, number = current.order if current else (-1, -1)
        request = pb.SubscribeRequest(run_id=self._parents.run_id, have_epoch=epoch, have_version=number)
        call = channel.unary_stream(f"/{SERVICE}/Subscribe")(request.SerializeToString(), metadata=self._metadata)
        while (message := await call.read()) is not grpc.aio.EOF:
            header = pb.Piece.FromString(message).header
            if header.finished:
                if not self._versions.finished:
                    self._versions.finished = True
                    self.wake()
                continue
            collector = Collector(header.content, self._options.max_weights_bytes)
            for _ in range(header.content.n_chunks):
                if (chunk := await call.read()) is grpc.aio.EOF:
                    break
                collector.add(chunk)
            self._take(collector.blob())

    def _take(self, blob: Blob) -> None:
        content, current = blob.content, self._versions.current
        version = Version(content.learner_epoch, content.version, content.digest, blob)
        if current is not None and version.order < current.order:
            raise Rejected("version", f"it went back from {current.order} to {version.order}")
        self._versions.current, self._versions.finished = version, False
        self.wake()

    async def _send(self, call: Any) -> None:
        outbox = self._outbox
        while True:
            await call.write(pb.RelayAsks(ask=await outbox.take()).SerializeToString())

    async def _hear(self, call: Any) -> None:
        """The first message answers nothing: it says that we may ask."""
        async with asyncio.timeout(SLACK_S):
            if await call.read() is grpc.aio.EOF:
                return
        self._up = self._welcome = True
        self._away.over()
        while (message := await call.read()) is not grpc.aio.EOF:
            for answer in pb.RelayAnswers.FromString(message).answer:
                waiting = self._open.get(answer.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)

    async def _deaf(self) -> None:
        """Ends when a question stayed without an answer: a parent whose machine is gone is noticed sooner than by the
        keepalive of the connection."""
        await self._silent.wait()
        raise TimeoutError("it does not answer")

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self._parents.token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    def _raise_if_final(self, address: str, error: BaseException) -> None:
        if not isinstance(error, grpc.aio.AioRpcError) or error.code() not in _FINAL:
            return
        if error.code() in _ACCESS and self._welcome:
            return  # the new token may be on its way
        raise UsageError(f"relay: parameter server {address}: {error.details()}") from error


async def _connected(channel: grpc.aio.Channel) -> None:
    """Raises :class:`TimeoutError` where nobody is."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise TimeoutError("nobody answers there")
        await channel.wait_for_state_change(state)
