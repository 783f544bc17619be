"""A shorter way from the socket to an answer of the broker, and logins whose refusal is heard.

The client library (3.0) receives in pieces of 4 KiB and copies every byte five times before an answer is handed over.
These subclasses receive whole frames into place; connections, metadata, offsets and login stay the library's. They lean
on its insides, which is why pyproject.toml holds it below the next minor version, and why tests/common/test_kafka.py
does everything through them.
"""

from __future__ import annotations

import select
import socket
import time
from types import MethodType
from typing import Any

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.consumer import FetchResponse

from headrace.common.buffers import Buffers

MORE_WITHIN_MS = 5
#: Frames from here on are received into memory used again, so many of them.
LARGE_BYTES, KEPT_FRAMES = 1 << 20, 4
#: How much of a frame is to be there before its receiver is woken.
WAKE_BYTES = 4 << 20
FETCH_VERSION = 12  # what the library asks a broker of 2.7 or newer for; older ones are read a little slower


class _Frame:
    """A received frame: what the library asks of its own buffer, without zeroing it first and copying it last."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self._at = 0

    def __len__(self) -> int:
        return len(self.view)

    def read(self, nbytes: int | None = None) -> memoryview | bytes:
        start = self._at
        if nbytes is None:
            self._at = len(self.view)
            return self.view[start:]
        self._at = min(start + nbytes, len(self.view))
        return bytes(self.view[start : self._at])

    def seek(self, at: int) -> None:
        self._at = at

    def tell(self) -> int:
        return self._at


class _FrameTransport(KafkaTCPTransport):  # type: ignore[misc]
    """Receives frames (a 4-byte length, then as many bytes) whole, each into its own buffer."""

    async def _read_from_sock(self) -> None:
        body: _Frame | None = None
        head, filled, large = memoryview(bytearray(4)), 0, Buffers(KEPT_FRAMES)
        self._protocol.parser.receive_bytes = MethodType(_receive_frame, self._protocol.parser)
        while self._read and not self._closed:
            await self._net.wait_read(self._sock)
            try:
                complete = False
                # After a frame its receiver has its turn: the next thing to be read may be the end, which undoes it.
                while not complete:
                    target = head if body is None else body.view
                    got = _receive(self._sock, target[filled:], waits=body is not None)
                    if got == 0:
                        raise ConnectionResetError("the broker closed the connection")
                    filled += got
                    if filled == len(target):
                        complete = body is not None
                        body = self._complete(head, body, large)
                        filled = 0
            except (BlockingIOError, InterruptedError):
                pass
            except errors.KafkaProtocolError as error:
                self.abort(error=error)
            except OSError as error:
                self.abort(error=errors.KafkaConnectionError(error))
            self.last_read = time.monotonic()

    def _complete(self, head: memoryview, body: _Frame | None, large: Buffers) -> _Frame | None:
        """A finished length makes room for its frame; a finished frame goes to the protocol."""
        if body is None:
            nbytes = int.from_bytes(head, "big", signed=True)
            self._protocol.parser._validate_frame_size(nbytes)
            return _Frame(large.take(nbytes) if nbytes >= LARGE_BYTES else memoryview(bytearray(nbytes)))
        self._protocol.data_received(body)
        return None


def _receive(sock: Any, target: memoryview, waits: bool) -> int:
    """As ``recv_into``; inside a frame it waits a moment for more, which is cheaper than a turn of the event loop."""
    try:
        return int(sock.recv_into(target))
    except BlockingIOError:
        if not waits:
            raise
    # To be woken for every packet costs more than the packets: be woken when much of the frame is there.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(len(target), WAKE_BYTES))
    try:
        more = select.poll()
        more.register(sock, select.POLLIN)
        more.poll(MORE_WITHIN_MS)
    finally:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    return int(sock.recv_into(target))


def _receive_frame(parser: Any, frame: _Frame) -> list[Any]:
    return [parser._process_response(frame)]


class _TlsTransport(KafkaSSLTransport):  # type: ignore[misc]
    """The library throws away what came together with the end of a connection: there, why a login was refused."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()
        return (data, None) if data else (data, error)  # the end is found again at the next turn


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        transport.__class__ = _TlsTransport if self.ssl_enabled else _FrameTransport
        return transport

    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        """The library means to remember a refused login and to stop asking, but looks for it in the wrong place."""
        await super()._connect(node, conn, **options)
        if conn.init_future.failed() and isinstance(conn.init_future.exception, errors.SaslAuthenticationFailedError):
            self._auth_failures[node.node_id] = conn.init_future.exception


def _view_if_large(data: memoryview) -> memoryview | bytes:
    return data if len(data) > 4096 else bytes(data)


def _decode_records_as_views() -> None:
    """The library generates its decoders at run time; in the one of fetch answers, ``bytes(...)`` shall not copy."""
    decoder = FetchResponse._struct.compiled_decode_from(
        FETCH_VERSION, compact=True, tagged=True, data_class=FetchResponse[None]
    )
    decoder.__globals__["bytes"] = _view_if_large


def net_client(**configs: Any) -> KafkaNetClient:
    """For the library's setting ``kafka_client``."""
    _decode_records_as_views()
    net = NetworkSelector(**configs)
    return KafkaNetClient(net=net, manager=_Manager(net, **configs), **configs)
