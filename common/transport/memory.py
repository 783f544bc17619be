"""A carrier inside one process, for the serial runner: a deque with a byte budget. Nothing is encoded.

Source and sink are two faces of one :class:`Memory`; a full budget is an error here, since nobody else could drain it.
"""

from __future__ import annotations

from collections import deque
from threading import Condition

from headrace.common.errors import Closed, TransportError
from headrace.common.transport.base import Limits, Position, Received, Undecodable
from headrace.common.types import Trajectory


class Memory:
    """Both halves of the carrier (:class:`Sink` and :class:`Source`)."""

    log_id = ""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._queue: deque[Trajectory] = deque()
        self._bytes = 0
        self._changed = Condition()
        self._closed = False

    def put(self, trajectory: Trajectory, timeout_s: float | None = None) -> None:
        with self._changed:
            if self._closed:
                raise Closed("the memory carrier is closed")
            if self._queue and self._bytes + trajectory.nbytes > self._limits.queue_bytes:
                raise TransportError(f"over {self._limits.queue_bytes} bytes wait; raise transport.queue_bytes")
            self._queue.append(trajectory)
            self._bytes += trajectory.nbytes
            self._changed.notify_all()

    def get(self, timeout_s: float) -> Received | None:
        with self._changed:
            if not self._queue:
                if self._closed:
                    raise Closed("the memory carrier is closed")
                self._changed.wait(timeout_s)
            if not self._queue:
                return None
            trajectory = self._queue.popleft()
            self._bytes -= trajectory.nbytes
            return Received(trajectory, nbytes=trajectory.nbytes)

    def take_undecodable(self) -> list[Undecodable]:
        """Nothing is encoded here."""
        return []

    def backlog(self) -> int:
        return len(self._queue)

    def position(self) -> Position:
        return {}

    def seek(self, position: Position, log_id: str = "") -> None:
        """There is no log to go back in."""

    def commit(self, position: Position) -> None:
        """Nobody watches."""

    def reject(self, received: Received, reason: str, detail: str) -> None:
        raise TransportError(f"our own fragment was rejected ({reason}): {detail}")

    def flush(self, timeout_s: float) -> None:
        """Whatever was put is there."""

    def close(self, timeout_s: float = 0.0, for_good: bool = True) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
