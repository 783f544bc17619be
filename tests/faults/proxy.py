"""A TCP proxy that is a bad network: slow, far away, cut, half open, or a black hole.

proxy = Proxy("127.0.0.1:9092"); clients connect to proxy.address
proxy.latency_s, proxy.bytes_per_s = 0.3, 125_000     each way; from the next bytes on
proxy.black_hole()      nothing passes and nobody is told; what was sent waits, as in TCP's own buffers
proxy.cut()             every connection is reset, and new ones are refused
proxy.half_open()       the server's ends are gone, and clients are not told
proxy.heal()            as new; what waited goes on
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

CHUNK_BYTES = 16 << 10
#: Chunks under way in one direction of a connection; then its sender has to wait.
UNDER_WAY = 16
#: SO_LINGER with no time: closing resets.
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Pair:
    """The two ends of a connection through us."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter


class Proxy:
    """Forwards to ``to`` (host:port) from a loopback port, the same one for good. Its loop runs in a thread."""

    def __init__(self, to: str, port: int = 0) -> None:
        host, _, far_port = to.rpartition(":")
        self._to = (host, int(far_port))
        self.latency_s, self.bytes_per_s = 0.0, math.inf
        self.connections = 0
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._passes = asyncio.Event()
        self._passes.set()
        self._port = port
        self._in_loop(self._listen)
        self.address = f"127.0.0.1:{self._port}"

    def black_hole(self) -> None:
        self._in_loop(self._passes.clear)

    def cut(self) -> None:
        def reset() -> None:
            self._server.close()
            for pair in list(self._pairs):
                _reset(pair.near), _reset(pair.far)

        self._in_loop(reset)

    def half_open(self) -> None:
        def leave() -> None:
            self._passes.clear()
            for pair in list(self._pairs):
                _reset(pair.far)

        self._in_loop(leave)

    def heal(self) -> None:
        self.latency_s, self.bytes_per_s = 0.0, math.inf
        self._in_loop(self._passes.set)
        if not self._server.is_serving():
            self._in_loop(self._listen)

    def close(self) -> None:
        self.cut()

        async def end() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._in_loop(end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _in_loop(self, do: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
        async def run() -> None:
            if (more := do()) is not None:
                await more

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port, limit=CHUNK_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _connect(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self._passes.wait()
        try:
            far, far_writer = await asyncio.open_connection(*self._to, limit=CHUNK_BYTES)
        except OSError:
            _reset(near_writer)
            return
        pair = _Pair(near_writer, far_writer)
        self._pairs.add(pair)
        ways = [self._task(self._way(near, far_writer)), self._task(self._way(far, near_writer))]
        await asyncio.wait(ways)
        self._pairs.discard(pair)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _way(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """One direction: what comes is due ``latency_s`` later, and leaves at ``bytes_per_s``."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(UNDER_WAY)
        leaving = self._task(self._leave(under_way, sink))
        data = b"begin"
        while data:
            try:
                data = await source.read(CHUNK_BYTES)
            except OSError:
                data = b""
            await under_way.put((self._loop.time() + self.latency_s, data))
        await leaving

    async def _leave(self, under_way: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        while True:
            due_s, data = await under_way.get()
            await asyncio.sleep(max(0.0, due_s - self._loop.time(), len(data) / self.bytes_per_s))
            await self._passes.wait()
            if not data:
                with contextlib.suppress(OSError):
                    sink.close()
                return
            with contextlib.suppress(OSError):  # its other end is gone: what comes for it is lost
                sink.write(data)
                await sink.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
