"""What a source has received and ``get`` has not returned: bounded in bytes, with the end of reading at its own end."""

from __future__ import annotations

from collections import deque
from threading import Condition

from headrace.common.errors import Closed, HeadraceError, TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Received

_OBJECT_BYTES = 512  # what the objects around a record, an array or an episode take, at most


class ReceivedQueue:
    """One thread puts, others get. ``where`` names the carrier in messages; ``limit_bytes`` counts what records hold on
    to, objects included."""

    def __init__(self, where: str, limit_bytes: int, metrics: Metrics) -> None:
        self._where, self._limit_bytes, self._metrics = where, limit_bytes, metrics
        self._changed = Condition()  # guards the rest
        self._records: deque[Received] = deque()
        self._nbytes = 0
        self._over: BaseException | None = None
        self._full = False  # does a record wait for room?

    def __len__(self) -> int:
        return len(self._records)

    def waiting(self) -> int:
        """Records here, with the one that waits for room."""
        with self._changed:
            return len(self._records) + self._full

    @property
    def room_bytes(self) -> int:
        return self._limit_bytes - self._nbytes

    def put(self, received: Received, timeout_s: float | None = None) -> bool:
        """Queue a record as soon as there is room for it (one is always let in). False when there was none in time, and
        when reading is over."""
        cost = _cost(received)
        with self._changed:
            self._full = True  # seen by nobody unless it waits
            self._full = not self._changed.wait_for(
                lambda: self._over or not self._records or cost <= self.room_bytes, timeout_s
            )
            if self._full or self._over:
                return False
            self._records.append(received)
            self._count(cost)
            return True

    def get(self, timeout_s: float) -> Received | None:
        """The next record, or None when none came in time. Once they are used up: raises what ended the reading."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._records or self._over, timeout_s):
                return None
            if not self._records:
                self.raise_if_over()
            received = self._records.popleft()
            self._count(-_cost(received))
            return received

    def clear(self) -> None:
        with self._changed:
            self._records.clear()
            self._full = False
            self._count(-self._nbytes)

    def close(self) -> None:
        """Reading is over, and what was read is not wanted."""
        with self._changed:
            self.fail(Closed(f"{self._where}: closed"))
            self.clear()

    def fail(self, error: BaseException) -> None:
        """Reading is over because of ``error``."""
        with self._changed:
            if self._over is None or isinstance(error, Closed):
                self._over = error
            self._changed.notify_all()

    def raise_if_over(self) -> None:
        if isinstance(self._over, HeadraceError):
            raise self._over
        if self._over is not None:
            what = f"{type(self._over).__name__}: {self._over}"
            raise TransportError(f"{self._where}: reading ended with {what}") from self._over

    def _count(self, more_bytes: int) -> None:
        self._nbytes += more_bytes
        self._metrics.set("transport_queue_bytes", self._nbytes)
        self._changed.notify_all()


def _cost(received: Received) -> int:
    """What a record holds on to, which a small one with thousands of episodes may have most of in objects."""
    trajectory = received.trajectory
    return received.nbytes + _OBJECT_BYTES * (8 + len(trajectory.arrays) + len(trajectory.episodes))
