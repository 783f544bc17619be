"""The learner's end of the gRPC carrier.

    publish(weights) -> pack (one copy) -> a worker thread sends it, and again to a server that lost it
    admit(progress)  -> the same thread tells it, the newest only

The worker asks the server how it is every second. A server that was started anew holds nothing: it gets the current
version again, with the learner's counters and the ledger as last heard, and so goes on without a burst of leases.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc

from headrace.common.errors import Closed, HeadraceError, TransportError
from headrace.common.metrics import Metrics
from headrace.common.types import Weights
from headrace.common.waiting import Waiting
from headrace.common.weights.address import addresses
from headrace.common.weights.base import LedgerState, Progress
from headrace.common.weights.chunks import Blob, pack
from headrace.common.weights.client import Backoff, Client, transfer_s
from headrace.common.weights.known_ledger import KnownLedger
from headrace.common.weights.tls import Tls
from headrace.common.weights.tokens import Token
from headrace.common.wire import paramserver_pb2 as pb

CHECK_S = 1.0
#: Counters older than this no longer prove that a fragment is missing.
FRESH_S = 2.0
FLUSH_S = 5.0


class GrpcPublisher:
    """A :class:`headrace.common.weights.base.Publisher`. At most one version is on its way while the next is made. Of
    several addresses the last is the root, where it publishes.

    Once ``stop()`` is true ``publish`` no longer waits for a server that is away: who is to end must come to its end.
    """

    def __init__(
        self,
        address: str,
        run_id: str,
        token: str | Token,
        metrics: Metrics,
        *,
        tls: Tls | None = None,
        down_timeout_s: float = 60.0,
        max_weights_bytes: int = 2 << 30,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client, self._run_id, self._metrics = Client(addresses(address)[-1], token, tls), run_id, metrics
        self._down_timeout_s, self._cap_bytes, self._stopping = down_timeout_s, max_weights_bytes, stop
        self._writer = secrets.randbits(63)
        self._blob: Blob | None = None
        self._progress, self._progress_at_s = Progress(0), 0.0
        self._server_has_blob = self._server_has_progress = True
        self._ledger = KnownLedger()
        self._hear: Callable[[LedgerState, int], None] = lambda state, ticket: None
        self._tickets = self._answered = 0
        self._error: HeadraceError | None = None
        self._down_since_s = float("inf")
        self._last_failure: grpc.RpcError | None = None
        self._away = Waiting("learner", math.inf)  # says it; who publishes is the one that gives up
        self._call: Any = None
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._worker = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._worker.start()

    def publish(self, weights: Weights, progress: Progress) -> None:
        blob = pack(weights, self._cap_bytes)
        self._metrics.inc("weights_encodes_total")
        with self._changed:
            self._wait_until_sent()
            self._blob, self._server_has_blob = blob, False
            self._take(progress)

    def admit(self, progress: Progress) -> None:
        with self._changed:
            self._raise_failure()
            self._take(progress)

    def listen(self, hear: Callable[[LedgerState, int], None]) -> None:
        self._hear = hear

    def ask(self) -> int:
        with self._changed:
            self._tickets += 1
            self._changed.notify_all()
            return self._tickets

    def flush(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        with self._changed:
            self._wait_until_sent(timeout_s)
            while not self._server_has_progress and not self._stopping():
                self._raise_failure()
                if time.monotonic() >= until_s:
                    raise TransportError(f"parameter server {self._client.address}: no answer in {timeout_s:.1f} s")
                self._changed.wait(0.1)

    def close(self) -> None:
        """Give the newest version a last chance, then release everything. Idempotent."""
        if not self._stop.is_set():
            with self._changed:
                with contextlib.suppress(HeadraceError):  # whoever closes is past caring
                    self._wait_until_sent(FLUSH_S)
                self._stop.set()
                self._changed.notify_all()
                if self._call is not None:
                    self._call.cancel()
            self._worker.join(5.0)
            self._client.close()

    # --- the learner's thread, holding the lock --------------------------------------------------------------------

    def _take(self, progress: Progress) -> None:
        self._progress, self._progress_at_s, self._server_has_progress = progress, time.monotonic(), False
        self._changed.notify_all()

    def _wait_until_sent(self, timeout_s: float = float("inf")) -> None:
        until_s = time.monotonic() + timeout_s
        while True:
            self._raise_failure()
            if self._server_has_blob or self._stopping():
                return
            if time.monotonic() >= until_s:
                raise TransportError(f"parameter server {self._client.address}: version not taken in {timeout_s:.1f} s")
            self._changed.wait(min(0.5, until_s - time.monotonic()))

    def _raise_failure(self) -> None:
        if self._stop.is_set():
            raise Closed("the publisher is closed")
        if self._error is not None:
            raise self._error
        away_s = time.monotonic() - self._down_since_s
        if away_s > self._down_timeout_s:
            message = f"parameter server {self._client.address}: away for {away_s:.0f} s"
            message += f": {self._client.why}" if self._client.why else ""
            raise TransportError(message) from self._last_failure

    # --- the worker's thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        backoff = Backoff(longest_s=CHECK_S)
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(self._something_to_do, CHECK_S)
                blob = None if self._server_has_blob else self._blob
                progress, unsent, ticket = self._progress, not self._server_has_progress, self._tickets
                if time.monotonic() - self._progress_at_s > FRESH_S:
                    progress = replace(progress, complete=False)
            if self._blob is None or self._stop.is_set():
                continue
            try:
                if blob is not None:
                    state = self._send_blob(blob, progress)
                else:
                    state = self._send_progress(progress if unsent else None)
            except grpc.FutureCancelledError:
                return  # close() did that
            except grpc.RpcError as e:
                if not self._failed(e):
                    return
                backoff.failed()
                backoff.wait(float("inf"), self._stop)
            else:
                backoff.worked()
                self._sent(state, progress, ticket)

    def _something_to_do(self) -> bool:
        if self._blob is None:
            return self._stop.is_set()
        told = self._server_has_blob and self._server_has_progress and self._answered == self._tickets
        return self._stop.is_set() or not told

    def _send_blob(self, blob: Blob, progress: Progress) -> pb.ServerState:
        header = pb.PublishHeader(
            run_id=self._run_id,
            writer=self._writer,
            content=blob.content,
            progress=_to_wire(progress),
            ledger=self._ledger.to_wire(progress),
            heard_lease=self._ledger.heard_lease,
        )
        began_s = time.perf_counter()
        send = self._client.upload("Publish")
        reply = self._finish(
            send.future(
                _pieces(header, blob), timeout=transfer_s(blob.content.total_bytes), metadata=self._client.metadata
            )
        )
        self._metrics.observe("weights_publish_seconds", time.perf_counter() - began_s)
        return pb.ServerState.FromString(reply)

    def _send_progress(self, progress: Progress | None) -> pb.ServerState:
        assert self._blob is not None
        request = pb.AdmitRequest(
            run_id=self._run_id,
            writer=self._writer,
            learner_epoch=self._blob.content.learner_epoch,
            progress=None if progress is None else _to_wire(progress),
            heard_lease=self._ledger.heard_lease,
        )
        ask = self._client.unary("Admit")
        reply = self._finish(
            ask.future(request.SerializeToString(), timeout=transfer_s(0), metadata=self._client.metadata)
        )
        return pb.ServerState.FromString(reply)

    def _finish(self, call: Any) -> bytes:
        with self._changed:  # close() finds the call, or the call finds that it is closed
            self._call = call
            if self._stop.is_set():
                call.cancel()
        return bytes(call.result())

    def _sent(self, state: pb.ServerState, progress: Progress, ticket: int) -> None:
        assert self._blob is not None
        self._client.welcome()
        self._away.over()
        if state.version >= 0:  # a server started anew knows less than we do
            self._hear(self._ledger.hear(state.ledger, progress), ticket)
        with self._changed:
            if self._down_since_s < float("inf"):
                self._metrics.inc("weights_reconnects_total")
            self._down_since_s, self._answered = float("inf"), ticket
            ours = (self._blob.content.learner_epoch, self._blob.content.version)
            # A new version may have been handed over meanwhile; a server that holds less than ours gets it (again).
            self._server_has_blob = (state.learner_epoch, state.version) >= ours
            if self._server_has_blob and replace(self._progress, complete=False) == replace(progress, complete=False):
                self._server_has_progress = True
            self._changed.notify_all()

    def _failed(self, error: grpc.RpcError) -> bool:
        """Whether to try again."""
        if self._stop.is_set():
            return False
        final = self._client.final(error) or self._client.refusal()
        if final is None:
            said = f"parameter server {self._client.address}: {self._client.why or error.details()}"
            self._away.goes_on(time.monotonic(), said)
        with self._changed:
            self._last_failure = error
            self._down_since_s = min(self._down_since_s, time.monotonic())
            if final is not None:
                final.__cause__ = error
                self._error = final
            self._changed.notify_all()
            return final is None


def _pieces(header: pb.PublishHeader, blob: Blob) -> Iterator[bytes]:
    yield pb.PublishPiece(header=header).SerializeToString()
    yield from blob.messages


def _to_wire(progress: Progress) -> pb.Progress:
    return pb.Progress(
        admit_until=progress.admit_until,
        next_lease=progress.next_lease,
        accepted=progress.accepted,
        spent=[pb.LeaseRun(first=first, end=end) for first, end in progress.spent],
        backlog=progress.backlog,
        complete=progress.complete,
        finished=progress.finished,
    )
