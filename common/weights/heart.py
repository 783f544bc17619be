"""The heartbeat of a rollout worker: while it collects, the server hears of it every second, from a thread of its own.

A worker that is not heard of for a few beats has lost its lease, however long its fragments take.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable

import grpc

from headrace.common.weights.client import Client
from headrace.common.wire import paramserver_pb2 as pb

BEAT_S = 1.0
#: How long one beat, and the farewell, may take.
DEADLINE_S = 1.0


class Heart:
    """Beats between ``begin`` and ``end``. A beat that fails is not said: ``next`` tells what is wrong."""

    def __init__(self, client: Client, run_id: str, actor_id: int, incarnation: int) -> None:
        self._client = client
        self._beat = pb.HeartbeatRequest(run_id=run_id, actor_id=actor_id, incarnation=incarnation)
        self._changed = threading.Condition()
        self._lease: int | None = None
        self._met = self._closed = False
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def begin(self, lease: int) -> None:
        """A fragment is begun under ``lease``."""
        with self._changed:
            self._lease = lease
            if not self._met:
                self._met = True
                self._thread.start()
            self._changed.notify_all()

    def end(self) -> int:
        """It has been put; its lease."""
        with self._changed:
            assert self._lease is not None, "no fragment was begun"
            lease, self._lease = self._lease, None
            return lease

    def close(self, received: Iterable[int]) -> None:
        """Take leave, so that nobody waits for what will not come. ``received``: as in NextRequest. Idempotent."""
        with self._changed:
            if self._closed or not self._met:
                self._closed = True
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join(2 * DEADLINE_S)
        self._beat.leaving = True
        self._beat.received.extend(received)
        self._send()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                if self._lease is None:
                    self._changed.wait()
                elif not self._changed.wait_for(lambda: self._closed, BEAT_S) and self._lease is not None:
                    self._changed.release()
                    try:
                        self._send()
                    finally:
                        self._changed.acquire()

    def _send(self) -> None:
        beat = self._client.unary("Heartbeat")
        with contextlib.suppress(grpc.RpcError, ValueError):  # ValueError: the channel was closed meanwhile
            beat(self._beat.SerializeToString(), timeout=DEADLINE_S, metadata=self._client.metadata)
