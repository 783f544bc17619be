"""The proxy is the network it says it is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield "127.0.0.1:%d" % listener.getsockname()[1]  # noqa: UP031
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo: str) -> Iterator[Proxy]:
    made = Proxy(echo)
    yield made
    made.close()


def connect(proxy: Proxy, timeout_s: float = 5.0) -> socket.socket:
    host, port = proxy.address.split(":")
    return socket.create_connection((host, int(port)), timeout_s)


def ask(client: socket.socket, data: bytes = b"x") -> float:
    """Seconds until all of it was there and back."""
    began = time.monotonic()
    threading.Thread(target=client.sendall, args=(data,)).start()
    missing = len(data)
    while missing:
        got = client.recv(1 << 16)
        assert got, "the connection was closed"
        missing -= len(got)
    return time.monotonic() - began


def test_it_is_nothing_at_first_and_then_far_away_and_slow(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client) < 0.1
        proxy.latency_s = 0.2
        assert 0.4 <= ask(client) < 0.6
        proxy.latency_s, proxy.bytes_per_s = 0.0, 200_000
        assert 0.4 < ask(client, bytes(100_000)) < 2.0
        assert proxy.connections == 1


def test_a_black_hole_tells_nobody_and_loses_nothing(proxy: Proxy) -> None:
    with connect(proxy, 0.5) as client:
        ask(client)
        proxy.black_hole()
        client.sendall(b"y")
        with pytest.raises(TimeoutError):
            client.recv(1)
        with connect(proxy, 0.5) as other:
            other.sendall(b"z")
            with pytest.raises(TimeoutError):
                other.recv(1)
            proxy.heal()
            assert (client.recv(1), other.recv(1)) == (b"y", b"z")


def test_a_cut_resets_and_refuses_until_it_is_healed(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.heal()
    with connect(proxy) as client:
        ask(client)


def test_half_open_is_silence_and_then_the_end(proxy: Proxy) -> None:
    with connect(proxy, 0.5) as client:
        ask(client)
        proxy.half_open()
        client.sendall(b"y")
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.heal()
        assert client.recv(1) == b""
