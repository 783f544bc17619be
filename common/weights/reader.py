"""What actors and evaluators read weights with.

    next(have_version) -> Next -> header: lease, newer weights? -> chunks -> digest right? -> Lease, all at once

While the server is away the caller keeps what it has: every call waits for it until its timeout (the channel connects
again by itself, with random pauses); after an error it pauses longer each time. ``away`` (common/waiting.py) is told of
every try, says aloud what is waited for, and ends the waiting in the end. Nothing partial, damaged or from a
replaced learner is ever handed over.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from headrace.common.buffers import Buffers
from headrace.common.errors import Closed, Rejected, TransportError
from headrace.common.metrics import Metrics
from headrace.common.types import Weights
from headrace.common.waiting import Waiting
from headrace.common.weights.chunks import Assembler
from headrace.common.weights.client import Backoff, Client
from headrace.common.weights.tls import Tls
from headrace.common.weights.tokens import Token
from headrace.common.wire import paramserver_pb2 as pb

#: A header later than the timeout by this much is not waited for.
HEADER_SLACK_S = 0.5
#: Longest time for a version to arrive after its header; connections that died are noticed sooner, by keepalive.
TRANSFER_TIMEOUT_S = 120.0
REFUSED_IN_A_ROW = 3
#: Between tries at a server that has no room, or a relay whose parent is away.
LONGEST_PAUSE_S = 3.0
#: The version in use and the one to come.
KEPT_VERSIONS = 2


class Reader:
    """Makes one call after another until one gives something or time is up."""

    def __init__(
        self, address: str, run_id: str, token: str | Token, metrics: Metrics, *, tls: Tls | None = None,
        max_weights_bytes: int = 2 << 30, away: Waiting | None = None,
    ) -> None:  # fmt: skip
        self._client, self._run_id, self._cap_bytes = Client(address, token, tls), run_id, max_weights_bytes
        self._metrics, self._away = metrics, away or Waiting("", math.inf, say=lambda line: None)
        self._backoff, self._stop, self._buffers = Backoff(LONGEST_PAUSE_S), threading.Event(), Buffers(KEPT_VERSIONS)
        self._call: Any = None
        self._have = (-1, -1)
        self._refused = 0

    def close(self) -> None:
        """End a call that waits in another thread, and release everything. Idempotent."""
        self._stop.set()
        if self._call is not None:
            self._call.cancel()
        self._client.close()

    def _until(self, timeout_s: float, try_once: Callable[[float], Any]) -> Any:
        """``try_once(remaining_s)`` until it gives something; None when ``timeout_s`` has passed."""
        until_s = time.monotonic() + timeout_s
        while self._backoff.wait(until_s, self._stop):
            try:
                given = try_once(max(0.0, until_s - time.monotonic()))
            except grpc.RpcError as e:
                self._raise_if_closed()
                final = self._client.final(e)
                if final is not None:
                    raise final from e
                self._away.goes_on(time.monotonic(), f"parameter server {self._client.address}: {e.details()}")
                self._backoff.failed()
                if e.code() == grpc.StatusCode.UNAVAILABLE:
                    self._client.turn()
            except ValueError:  # grpc's word for a channel that was closed meanwhile
                self._raise_if_closed()
                raise
            except Rejected as e:
                self._count_refused(e)
                self._backoff.failed()
            else:
                self._backoff.worked()
                if given is not None or time.monotonic() >= until_s:
                    return given
        self._raise_if_closed()
        return None

    def _open(self, method: str, request: bytes, wait_s: float) -> tuple[Any, pb.Header] | None:
        """Start a call and wait for its header, ``wait_s`` and a little longer; None if it did not come."""
        stream = self._client.download(method)
        timeout_s, began_s = wait_s + TRANSFER_TIMEOUT_S, time.monotonic()
        call = stream(request, timeout=timeout_s, metadata=self._client.metadata, wait_for_ready=True)
        self._call = call
        too_late = threading.Event()

        def give_up() -> None:
            too_late.set()
            call.cancel()

        timer = threading.Timer(wait_s + HEADER_SLACK_S, give_up)
        timer.start()
        try:
            header = pb.Piece.FromString(next(call, b"")).header
            self._client.welcome()
            if self._away.under_way:
                self._metrics.inc("weights_reconnects_total")
            self._away.over()
            return call, header
        except DecodeError as e:
            raise Rejected("malformed", f"{self._client.address} answers in another format: {e}") from e
        except grpc.RpcError:
            if not too_late.is_set():
                raise
            self._no_header(began_s)
            return None
        finally:
            timer.cancel()

    def _no_header(self, began_s: float) -> None:
        """A call that began then was answered by nothing at all."""
        in_touch = self._client.in_touch()
        if not in_touch and (refused := self._client.refusal()) is not None:
            raise refused
        self._unheard(began_s)
        if not in_touch:
            self._client.turn()

    def _unheard(self, began_s: float) -> None:
        why = f": {self._client.why}" if self._client.why else ""
        self._away.goes_on(began_s, f"no answer from the parameter server at {self._client.address}{why}")

    def _receive(self, call: Any, content: pb.Content) -> Weights:
        """The version behind the header: whole, right, and not older than what we have, else :class:`Rejected`."""
        order = (content.learner_epoch, content.version)
        if order < self._have:
            raise Rejected("version", f"parameter server {self._client.address} went back from {self._have} to {order}")
        assembler = Assembler(content, self._cap_bytes, self._buffers)
        for _ in range(content.n_chunks):
            assembler.add(next(call, b""))
        weights = assembler.weights()
        if weights.run_id != self._run_id:
            raise Rejected("run", f"weights of run {weights.run_id!r}, this run is {self._run_id!r}")
        return weights

    def _has(self, have_version: int) -> None:
        """Take over what the caller says it has (-1: nothing)."""
        self._have = (self._have[0], have_version)

    def _count_refused(self, error: Rejected) -> None:
        self._refused += 1
        self._metrics.inc("weights_refused_total")
        if self._refused >= REFUSED_IN_A_ROW:
            raise TransportError(f"weights refused {self._refused} times in a row: {error}") from error

    def _raise_if_closed(self) -> None:
        if self._stop.is_set():
            raise Closed("the subscriber is closed")
