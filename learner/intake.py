"""From the carrier to the learner's hands: a thread of its own fetches, decodes and validates, so that the learner
never waits for what could have been done before.

    source.get -> validate -> run? schema? duplicate? -> queue (bounded in bytes), by lease -> take()

Fragments are handed over in order of their leases: what was begun first is trained on first. So a learner that comes
back to a log of many partitions takes up all that was put meanwhile in the order in which it was begun, and none of it
is overtaken and found stale.

What is refused, here or by the carrier's decoder, is counted by reason, kept in the dead-letter place, and counted as
consumed: its lease must not starve the learner.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Thread

from headrace.common.errors import REJECT_REASONS, Rejected
from headrace.common.metrics import Metrics
from headrace.common.transport import Received, Source
from headrace.common.types import Trajectory

#: Refused here or by the decoder. Duplicates spent no lease of their own; what is stale, the learner counts itself.
_SPENT = tuple(reason for reason in REJECT_REASONS if reason not in ("duplicate", "stale"))


@dataclass
class Marks:
    """De-duplication marks: per actor, the incarnation seen last and the highest sequence number applied of it.

    A record of an older incarnation is not a duplicate by itself (it may have waited in the log), so each
    incarnation of an actor keeps its own mark; the oldest are forgotten beyond ``keep`` an actor.
    """

    keep: int = 8
    seen: dict[int, dict[int, int]] = field(default_factory=dict)

    def is_duplicate(self, trajectory: Trajectory) -> bool:
        return trajectory.seq <= self.seen.get(trajectory.actor_id, {}).get(trajectory.incarnation, -1)

    def apply(self, trajectory: Trajectory) -> None:
        lives = self.seen.setdefault(trajectory.actor_id, {})
        lives[trajectory.incarnation] = max(trajectory.seq, lives.pop(trajectory.incarnation, -1))
        while len(lives) > self.keep:
            del lives[next(iter(lives))]

    def copy(self) -> Marks:
        return Marks(self.keep, {actor: dict(lives) for actor, lives in self.seen.items()})

    def to_json(self) -> dict[str, dict[str, int]]:
        return {str(a): {str(i): s for i, s in lives.items()} for a, lives in self.seen.items()}

    @classmethod
    def from_json(cls, saved: dict[str, dict[str, int]]) -> Marks:
        return cls(seen={int(a): {int(i): s for i, s in lives.items()} for a, lives in saved.items()})


class Intake:
    """Runs the fetching thread. ``take`` hands over one admitted record; the thread's death surfaces there."""

    def __init__(
        self, source: Source, check: Callable[[Trajectory], None], metrics: Metrics, queue_bytes: int, marks: Marks
    ) -> None:
        self._source, self._check, self._metrics, self._queue_bytes = source, check, metrics, queue_bytes
        self._marks = marks
        self._queue: list[tuple[int, int, Received]] = []  # a heap: lease, number, record
        self._number = 0
        self._bytes = 0
        self._changed = Condition()
        self._stopped = False
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    @property
    def rejected(self) -> int:
        """Records refused in this life of the learner, whose leases are spent for nothing."""
        return sum(int(self._metrics.value("learner_rejected_total", reason=reason)) for reason in _SPENT)

    def backlog(self) -> int:
        """Records fetched or known to wait in the carrier, not taken yet."""
        return len(self._queue) + self._source.backlog()

    def waiting(self) -> list[Received]:
        """What is in the queue."""
        with self._changed:
            return [received for *_, received in self._queue]

    def catch_up(self, timeout_s: float) -> None:
        """Wait until all that the carrier holds is in the queue, or the queue is full."""
        deadline = time.monotonic() + timeout_s
        while self._source.backlog() and self._bytes < 0.9 * self._queue_bytes and time.monotonic() < deadline:
            if self._failure is not None:
                return  # take will say so
            time.sleep(0.02)

    def take(self, timeout_s: float) -> Received | None:
        """The next admitted record; None after ``timeout_s``. Raises what killed the fetching thread."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._queue:
                if self._failure is not None:
                    raise self._failure
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    return None
            received = heapq.heappop(self._queue)[-1]
            self._bytes -= received.nbytes or received.trajectory.nbytes
            self._changed.notify_all()
            return received

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout=10)
        self._source.close()

    def _run(self) -> None:
        try:
            while not self._stopped:
                received = self._source.get(timeout_s=0.1)
                if received is not None:
                    self._admit(received)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _admit(self, received: Received) -> None:
        trajectory = received.trajectory
        try:
            self._check(trajectory)
        except Rejected as refusal:
            self._refuse(received, refusal.reason, str(refusal))
            return
        if self._marks.is_duplicate(trajectory):
            self._metrics.inc("learner_rejected_total", reason="duplicate")
            return
        self._marks.apply(trajectory)
        nbytes = received.nbytes or trajectory.nbytes
        with self._changed:
            while self._queue and self._bytes + nbytes > self._queue_bytes and not self._stopped:
                self._changed.wait(timeout=1.0)
            heapq.heappush(self._queue, (trajectory.lease, self._number, received))
            self._number += 1
            self._bytes += nbytes
            self._changed.notify_all()

    def _refuse(self, received: Received, reason: str, detail: str) -> None:
        self._metrics.inc("learner_rejected_total", reason=reason)
        self._source.reject(received, reason, detail)
