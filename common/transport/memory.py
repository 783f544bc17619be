"""A carrier inside one process, for the serial runner: a queue with a byte budget. Nothing is encoded.

Source and sink are two faces of one :class:`Memory`; a full budget is an error here, since nobody else could drain it.
"""

from __future__ import annotations

from headrace.common.errors import TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits, Received, Undecodable, WithoutLog
from headrace.common.transport.received_queue import ReceivedQueue
from headrace.common.types import Trajectory


class Memory(WithoutLog):
    """Both halves of the carrier (:class:`Sink` and :class:`Source`)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._queue = ReceivedQueue("the memory carrier", limits.queue_bytes, Metrics("memory"))

    def put(self, trajectory: Trajectory, timeout_s: float | None = None) -> None:
        if not self._queue.put(Received(trajectory, nbytes=trajectory.nbytes), timeout_s=0):
            self._queue.raise_if_over()
            raise TransportError(f"over {self._limits.queue_bytes} bytes wait; raise transport.queue_bytes")

    def get(self, timeout_s: float) -> Received | None:
        return self._queue.get(timeout_s)

    def take_undecodable(self) -> list[Undecodable]:
        """Nothing is encoded here."""
        return []

    def backlog(self) -> int:
        return len(self._queue)

    def reject(self, received: Received, reason: str, detail: str) -> None:
        raise TransportError(f"our own fragment was rejected ({reason}): {detail}")

    def flush(self, timeout_s: float) -> None:
        """Whatever was put is there."""

    def close(self, timeout_s: float = 0.0, for_good: bool = True) -> None:
        self._queue.close()
