"""Simulated clients of a parameter server, hundreds to a process: what they say is real, what they do is wait.

    follower   Subscribe -> every newest version, each checked whole
    actor      Next (a lease, newer weights) -> as long as a fragment takes, its heart beating -> put -> Next ...

Every client has a connection of its own, as real ones do. The actors of a process share one sink, as the workers of an
actor process do; a fragment is acknowledged before its actor asks for the next lease.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import grpc
import numpy as np

from headrace.algorithms import ppo
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_sink
from headrace.common.types import Layout, Schema, Spaces, Trajectory
from headrace.common.weights.base import REPORTED_LEASES
from headrace.common.weights.chunks import Collector
from headrace.common.weights.client import CHANNEL_OPTIONS, SERVICE
from headrace.common.wire import paramserver_pb2 as pb

LIMITS, TASK = Limits(), "simulated"
#: As an actor process waits for a lease (launch/run_actor.py).
LEASE_WAIT_S = 1.0
CALL_TIMEOUT_S, BEAT_TIMEOUT_S, PUT_TIMEOUT_S, PAUSE_S = 120.0, 1.0, 60.0, 0.4
#: What a LunarLander step weighs: obs, action, reward, two flags, logp.
SCHEMA: Schema = ppo.schema(ppo.Config(), Spaces.box((8,), n_actions=4))
#: client, version, and when (monotonic seconds) it had all of it.
Arrival = tuple[int, int, float]


@dataclass(frozen=True)
class Crowd:
    """The clients of one process: ``n`` of them, numbered from ``first``, at the server or relay at ``address``.

    ``envs`` > 0 makes them actors: fragments of ``fragment_steps`` steps of so many environments, each taking
    ``fragment_s`` (10 % more or less), put to ``url``; hearts beat every ``beat_s``. Else they follow.
    """

    address: str
    run_id: str
    first: int
    n: int
    envs: int = 0
    fragment_steps: int = 128
    fragment_s: float = 1.0
    beat_s: float = 1.0
    url: str = ""


def fragment(run_id: str, steps: int, envs: int) -> Trajectory:
    """One of :data:`SCHEMA` in which no episode ended."""
    rng, arrays = np.random.default_rng(0), {}
    for name, field in SCHEMA.fields.items():
        leading = {Layout.STEP: (steps, envs), Layout.CHAIN: (steps + 1, envs), Layout.FINAL: (0,)}[field.layout]
        shape = (*leading, *field.shape)
        floats = field.dtype == "float32"
        arrays[name] = rng.random(shape, np.float32) if floats else np.zeros(shape, field.dtype)
    arrays["action"] = rng.integers(0, 4, (steps, envs))
    return Trajectory(run_id, 1, 0, 0, 0, 0, 0, TASK, SCHEMA.hash, steps, envs, arrays)


def crowd(pipe: Connection, what: Crowd) -> None:
    """Runs in a process of its own. To every order it answers with what was counted so far, and what arrived since the
    last one; None ends it."""
    asyncio.run(_crowd(pipe, what))


async def _crowd(pipe: Connection, what: Crowd) -> None:
    counts, arrived, loop = Counter[str](), list[Arrival](), asyncio.get_running_loop()
    putter = Putter(what.url, loop, counts) if what.envs else None
    clients: list[_Client] = []
    for number in range(what.first, what.first + what.n):
        clients.append(Follower(what, number, counts, arrived) if putter is None else
                       Actor(what, number, counts, arrived, putter))  # fmt: skip
    tasks = [asyncio.create_task(client.run()) for client in clients]
    while (await loop.run_in_executor(None, pipe.recv)) is not None:
        for task in tasks:
            if task.done():
                task.result()  # one that died takes the process with it
        pipe.send((dict(counts) | {"cpu_s": time.process_time()}, arrived[:]))
        arrived.clear()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if putter is not None:
        await loop.run_in_executor(None, putter.close)


class _Client:
    """One connection. An error of a call is counted, and the call made again."""

    method = ""

    def __init__(self, what: Crowd, number: int, counts: Counter[str], arrived: list[Arrival]) -> None:
        self.what, self.number, self.counts, self.arrived = what, number, counts, arrived
        self.have, self.rng = (-1, -1), random.Random(number)

    async def run(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.0, self.what.fragment_s if self.what.envs else 1.0))
        async with grpc.aio.insecure_channel(self.what.address, CHANNEL_OPTIONS) as channel:
            call = channel.unary_stream(f"/{SERVICE}/{self.method}")
            background = asyncio.create_task(self.beside(channel))
            try:
                while True:
                    try:
                        await self.once(call)
                    except grpc.aio.AioRpcError as error:
                        self.counts[f"errors {error.code().name}"] += 1
                        await asyncio.sleep(self.rng.uniform(0.0, PAUSE_S))
            finally:
                background.cancel()

    async def once(self, method: Any) -> None:
        raise NotImplementedError

    async def beside(self, channel: Any) -> None:
        """What goes on beside the calls."""

    async def take(self, call: Any, header: pb.Header) -> None:
        """The version behind a header, whole and right, else :class:`Rejected`."""
        content = header.content
        collector = Collector(content, 1 << 31)
        for _ in range(content.n_chunks):
            collector.add(await call.read())
        collector.blob()
        self.have = (content.learner_epoch, content.version)
        self.arrived.append((self.number, content.version, time.monotonic()))
        self.counts["weight_bytes"] += content.total_bytes
        self.counts["versions"] += 1


class Follower(_Client):
    method = "Subscribe"

    async def once(self, method: Any) -> None:
        """One stream, a version after the other."""
        request = pb.SubscribeRequest(run_id=self.what.run_id, have_epoch=self.have[0], have_version=self.have[1])
        call = method(request.SerializeToString(), wait_for_ready=True)
        while (message := await call.read()) is not grpc.aio.EOF:
            await self.take(call, pb.Piece.FromString(message).header)


class Actor(_Client):
    method = "Next"

    def __init__(self, what: Crowd, number: int, counts: Counter[str], arrived: list[Arrival], putter: Putter) -> None:
        super().__init__(what, number, counts, arrived)
        self._putter, self._incarnation, self._seq = putter, secrets.randbits(63), 0
        self._received, self._holding = deque[int](maxlen=REPORTED_LEASES), asyncio.Event()
        self._made = fragment(what.run_id, what.fragment_steps, what.envs)

    async def once(self, method: Any) -> None:
        """Ask for a lease, wait as long as its fragment takes, put it."""
        began_s = time.monotonic()
        lease = await self._ask(method)
        if lease is None:
            return
        self.counts["leases"] += 1
        self.counts["asked_us"] += int((time.monotonic() - began_s) * 1e6)
        self._holding.set()
        await asyncio.sleep(self.what.fragment_s * self.rng.uniform(0.9, 1.1))
        began_s = time.monotonic()
        stamps = {"actor_id": self.number, "incarnation": self._incarnation, "seq": self._seq, "lease": lease}
        await self._putter.put(replace(self._made, policy_version=self.have[1], **stamps))
        self._seq += 1
        self._received.append(lease)
        self._holding.clear()
        self.counts["fragments"] += 1
        self.counts["put_us"] += int((time.monotonic() - began_s) * 1e6)

    async def _ask(self, method: Any) -> int | None:
        request = pb.NextRequest(
            run_id=self.what.run_id,
            actor_id=self.number,
            incarnation=self._incarnation,
            received=self._received,
            have_epoch=self.have[0],
            have_version=self.have[1],
            timeout_ms=int(LEASE_WAIT_S * 1e3),
        )
        self.counts["next_calls"] += 1
        call = method(request.SerializeToString(), timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        header = pb.Piece.FromString(await call.read()).header
        if header.HasField("content"):
            await self.take(call, header)
        assert await call.read() is grpc.aio.EOF
        return int(header.lease) if header.granted else None

    async def beside(self, channel: Any) -> None:
        """As common/weights/heart.py beats."""
        who = pb.HeartbeatRequest(run_id=self.what.run_id, actor_id=self.number, incarnation=self._incarnation)
        beat, message = channel.unary_unary(f"/{SERVICE}/Heartbeat"), who.SerializeToString()
        while True:
            await self._holding.wait()
            await asyncio.sleep(self.what.beat_s)
            if self._holding.is_set():
                self.counts["beats"] += 1
                try:
                    await beat(message, timeout=BEAT_TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    self.counts[f"errors of beats {error.code().name}"] += 1


class Putter:
    """The one sink of a process, in a thread: what came while it flushed is put and flushed together."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, counts: Counter[str]) -> None:
        self._url, self._loop, self._counts = url, loop, counts
        self._waiting: SimpleQueue[tuple[Trajectory, asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="putter", daemon=True)
        self._thread.start()

    async def put(self, trajectory: Trajectory) -> None:
        """Returns once it is acknowledged."""
        done = self._loop.create_future()
        self._waiting.put((trajectory, done))
        await done

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join(2 * PUT_TIMEOUT_S)

    def _run(self) -> None:
        metrics = Metrics("actor")
        sink = open_sink(self._url, limits=LIMITS, metrics=metrics, key=secrets.token_hex(8))
        while (first := self._waiting.get()) is not None:
            batch = [first]
            try:
                while (more := self._waiting.get_nowait()) is not None:
                    batch.append(more)
            except Empty:
                more = first
            for trajectory, _ in batch:
                sink.put(trajectory, PUT_TIMEOUT_S)
            sink.flush(PUT_TIMEOUT_S)
            self._counts["put_bytes"] = int(metrics.value("transport_bytes_total", direction="put"))
            self._loop.call_soon_threadsafe(_resolve, [done for _, done in batch])
            if more is None:
                break
        sink.close(PUT_TIMEOUT_S)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
