"""A hostile gRPC client, and a detour that makes it come from another machine's address (127.0.0.2)."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from headrace.common.wire import paramserver_pb2 as pp
from headrace.common.wire import paramserver_pb2_grpc as rpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
Outcome = tuple[str, str]


def life() -> int:
    """An incarnation: random, 63 bits."""
    return random.getrandbits(63)


class Detour:
    """Forwards connections to ``address`` (host:port) from the loopback address ``source``."""

    def __init__(self, address: str, source: str = "127.0.0.2"):
        host, port = address.rsplit(":", 1)
        self._to, self._source = (host, int(port)), source
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._to, 5.0, source_address=(self._source, 0))
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    @staticmethod
    def _pump(a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections."""
        for s in self._open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


class Client:
    """Calls of one attacker; ``token`` None is somebody without rights."""

    def __init__(self, address: str, run_id: str, token: str | None):
        self.channel = grpc.insecure_channel(address, OPTIONS)
        self.stub = rpc.ParamServerStub(self.channel)
        self.run_id = run_id
        self.metadata = [] if token is None else [("authorization", f"Bearer {token}")]

    def try_call(self, name: str, request: Any, timeout_s: float = 5.0) -> Outcome:
        """One call, whatever comes of it: the status code's name and what was answered or said."""
        method: Callable[..., Any] = getattr(self.stub, name)
        try:
            answer = method(request, metadata=self.metadata, timeout=timeout_s)
            if name == "Subscribe":
                first = next(iter(answer))
                answer.cancel()
                return "OK", str(first.header)
            return "OK", str([p.header for p in answer if p.HasField("header")] if name == "Next" else answer)
        except StopIteration:
            return "OK", ""
        except grpc.RpcError as e:
            return e.code().name, str(e.details())

    def next(self, actor_id: int, incarnation: int, received: Iterable[int] = (), wait_ms: int = 1000) -> Any:
        """An honest Next; returns the header that is answered."""
        request = pp.NextRequest(run_id=self.run_id, actor_id=actor_id, incarnation=incarnation, received=received)
        request.have_epoch, request.have_version, request.timeout_ms = -1, -1, wait_ms
        pieces = list(self.stub.Next(request, metadata=self.metadata, timeout=30.0))
        return pieces[0].header

    def lease(self, actor_id: int, incarnation: int, received: Iterable[int] = (), timeout_s: float = 30.0) -> Any:
        """Ask until there is a lease."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            header = self.next(actor_id, incarnation, received)
            if header.granted:
                return header
        raise AssertionError(f"no lease for {actor_id} in {timeout_s} s")

    def leave(self, actor_id: int, incarnation: int) -> Outcome:
        """Take leave, so that what is held goes to others at once."""
        request = pp.HeartbeatRequest(run_id=self.run_id, incarnation=incarnation, leaving=True)
        request.actor_id = actor_id
        return self.try_call("Heartbeat", request)

    def beat(self, actor_id: int, incarnation: int) -> Outcome:
        """Pretend to collect."""
        return self.try_call(
            "Heartbeat", pp.HeartbeatRequest(run_id=self.run_id, actor_id=actor_id, incarnation=incarnation)
        )

    def join(self, incarnation: int, workers: int = 1) -> list[int]:
        """Numbers that nobody uses."""
        request = pp.JoinRequest(run_id=self.run_id, incarnation=incarnation, workers=workers)
        return list(self.stub.Join(request, metadata=self.metadata, timeout=10.0).actor_id)

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()
