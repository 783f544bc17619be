"""A parameter server with an address: the service on a thread of its own, started and stopped from outside.

server = ParamServer("127.0.0.1:0", Options(), metrics)
server.start()
... server.address ...
server.stop(grace_s=5)
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.common.unix_socket import claimed
from headrace.common.weights.address import socket_path
from headrace.common.weights.chunks import MESSAGE_BYTES, Blob
from headrace.paramserver.auth import Access
from headrace.paramserver.credentials import server_credentials
from headrace.paramserver.options import Options
from headrace.paramserver.relay import Relay
from headrace.paramserver.service import SERVICE, Root, Service
from headrace.paramserver.store import Store, Versions
from headrace.paramserver.upstream import Parents

#: The server's half of the keepalive agreement; the clients' half is in common/weights/client.py.
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),
    # Every stream of an actor has a connection of its own; one connection has no use for more calls at once.
    ("grpc.max_concurrent_streams", 16),
]
TICK_S = 0.25


class ParamServer:
    """Serves one run. ``address``: host:port (port 0 picks one) or unix:/path. ``turned`` is called every
    :data:`TICK_S` by the loop that serves. ``parents``: it is a relay of these (``versions`` come from there, and
    ``store`` stays empty)."""

    def __init__(
        self,
        address: str,
        options: Options,
        metrics: Metrics,
        turned: Callable[[], None] = lambda: None,
        parents: Parents | None = None,
    ) -> None:
        options.check(address)
        self.address, self._options, self._metrics, self._turned = address, options, metrics, turned
        self._parents, self._stopped = parents, False
        self._upstream: asyncio.Task[None] | None = None
        self.store: Store[Blob] = Store(options.ledger(), options.run_id)
        self.versions: Versions[Blob] = self.store if parents is None else Versions(options.run_id)

    def start(self) -> None:
        """Listen. Raises :class:`UsageError` when the address cannot be had."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="paramserver", daemon=True)
        self._thread.start()
        try:
            self._run(self._start(), timeout_s=10.0)
        except BaseException:
            self._end_loop()
            raise

    def stop(self, grace_s: float) -> None:
        """End every call, after at most ``grace_s`` for those being answered. Idempotent."""
        if not self._stopped:
            self._run(self._stop(grace_s), timeout_s=grace_s + 5.0)
            self._end_loop()

    def raise_if_failed(self) -> None:
        """Raises what ended a relay: :class:`UsageError` where no parent will have it."""
        if self._upstream is not None and self._upstream.done():
            self._upstream.result()

    @property
    def ready(self) -> bool:
        """Whether there are weights to serve."""
        return self.versions.current is not None

    @property
    def all_went_home(self) -> bool:
        """The run has come to its end, and whoever asks has been told."""
        return self._service.told_the_end

    def _run(self, what: Any, timeout_s: float) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout_s)

    def _end_loop(self) -> None:
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    async def _start(self) -> None:
        self._health = health.aio.HealthServicer()
        await self._set_health(HealthCheckResponse.NOT_SERVING)
        self._service = self._make_service()
        options = self._options
        access = Access(SERVICE, options.tokens(), options.tls_client_ca is not None)
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS, interceptors=[access])
        self._server.add_generic_rpc_handlers((self._service.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.address = self._bind()
        await self._server.start()
        self._ticking = asyncio.create_task(self._service.tick(TICK_S, self._turned))

    def _make_service(self) -> Service:
        if self._parents is None:
            return Root(self.store, self._options, self._metrics, self._now_serving)
        relay = Relay(self._parents, self.versions, self._options, self._metrics, self._now_serving)
        self._upstream = asyncio.create_task(relay.upstream.run())
        return relay

    def _bind(self) -> str:
        path = socket_path(self.address)
        if path is None:
            return self._add_port()
        # gRPC would remove a socket that is there, whoever answers on it.
        with claimed(path, socket.SOCK_STREAM, f"parameter server: {self.address}"):
            return self._add_port()

    def _add_port(self) -> str:
        self._credentials = credentials = server_credentials(self._options)
        try:
            if credentials is None:
                port = self._server.add_insecure_port(self.address)
            else:
                port = self._server.add_secure_port(self.address, credentials)
        except RuntimeError as e:
            raise UsageError(f"parameter server: cannot listen on {self.address}: is the address taken?") from e
        return self.address if self.address.startswith("unix") else f"{self.address.rpartition(':')[0]}:{port}"

    async def _stop(self, grace_s: float) -> None:
        self._ticking.cancel()
        if self._upstream is not None:
            self._upstream.cancel()
            await asyncio.gather(self._upstream, return_exceptions=True)
        await self._health.enter_graceful_shutdown()
        self._service.drain()
        await self._server.stop(grace_s)

    async def _set_health(self, status: Any) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)

    def _now_serving(self) -> None:
        self._telling = asyncio.get_running_loop().create_task(self._set_health(HealthCheckResponse.SERVING))
