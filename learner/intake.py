"""From the carrier to the learner's hands: a thread of its own fetches, decodes and validates, so that the learner
never waits for what could have been done before.

    source.get -> valid? -> its own lease? -> queue (bounded in bytes), by lease -> take()
                               └> not known yet: early, until the parameter server's next answer

Fragments are handed over in order of their leases: what was begun first is trained on first. So a learner that comes
back to a log of many partitions takes up all that was put meanwhile in the order in which it was begun, and none of it
is overtaken and found stale.

What is refused, here or by the carrier's decoder, is counted by reason and kept in the dead-letter place. If it came
under a lease of its own, that lease is spent, and another worker may have its place; nothing else that a bad record
claims moves anything.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Condition, Thread

from headrace.common.errors import Rejected
from headrace.common.lease_set import Run
from headrace.common.metrics import Metrics
from headrace.common.transport import Received, Source
from headrace.common.types import Trajectory
from headrace.common.weights.base import LedgerState
from headrace.learner.leases import Leases

#: Fragments that may be early at once; beyond, the next one waits in the carrier.
MAX_EARLY = 256


#: No question was put yet.
_UNASKED = 1 << 62


@dataclass(eq=False)
class _Early:
    """A fragment whose lease is not known yet, what else is wrong with it, and the ticket of the answer to wait for."""

    received: Received
    refusal: Rejected | None
    asked: int = _UNASKED


@dataclass(frozen=True)
class Refused:
    """A record that was refused for ``reason``, and the lease that it spent, if it had one."""

    reason: str
    lease: int | None


@dataclass(frozen=True)
class Account:
    """What came, at one moment: the leases spent, the fragments in the queue, the records in the carrier, which was
    asked for them ``waiting_age_s`` ago."""

    spent: tuple[Run, ...]
    issued: int
    queued: int
    waiting: int
    waiting_age_s: float


class Intake:
    """Runs the fetching thread. ``take`` hands over one admitted record; the thread's death surfaces there.

    ``check`` raises :class:`Rejected` for what is not fit. ``ask`` asks the parameter server how its ledger stands;
    its answers come to :meth:`hear`. ``examined``: how far a former life got, by partition; what has no lease and was
    refused there is not counted again.
    """

    def __init__(
        self,
        source: Source,
        check: Callable[[Trajectory], None],
        leases: Leases,
        ask: Callable[[], int],
        metrics: Metrics,
        queue_bytes: int,
        examined: Mapping[int, int],
    ) -> None:
        self._source, self._check, self._metrics, self._queue_bytes = source, check, metrics, queue_bytes
        self._leases, self._ask = leases, ask
        self.examined, self._examined_before = dict(examined), dict(examined)  # next offset, by partition
        self._counted: list[Refused] = []
        self._queue: list[tuple[int, int, Received]] = []  # a heap: lease, number, record
        self._early: list[_Early] = []
        self._refused: list[tuple[Received, Rejected]] = []
        self._number = self._bytes = 0
        self._changed = Condition()
        self._stopped = False
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def account(self) -> Account:
        """For the parameter server: all of it of one moment."""
        in_carrier, age_s = self._source.backlog(), self._source.backlog_age_s()
        with self._changed:
            spent, issued = self._leases.spent.runs, self._leases.issued
            return Account(spent, issued, len(self._queue), in_carrier + len(self._early), age_s)

    def backlog(self) -> int:
        """Records fetched or known to wait in the carrier, not taken yet."""
        account = self.account()
        return account.queued + account.waiting

    def waiting(self) -> list[Received]:
        """What came and was not taken."""
        with self._changed:
            return [*(received for *_, received in self._queue), *(early.received for early in self._early)]

    def take_refused(self) -> list[Refused]:
        """What was refused since the last call."""
        with self._changed:
            refused, self._counted = self._counted, []
            return refused

    def hear(self, state: LedgerState, ticket: int) -> None:
        """An answer of the parameter server, from whichever thread: those that were early are judged again."""
        with self._changed:
            self._leases.hear(state, ticket)
            self._judge_again()

    def catch_up(self, timeout_s: float) -> None:
        """Wait until all that the carrier holds is in the queue, or the queue is full."""
        deadline = time.monotonic() + timeout_s
        while self._early or self._source.backlog():
            full = self._bytes > 0.9 * self._queue_bytes
            if full or self._failure is not None or time.monotonic() > deadline:
                return  # of a failure, take will speak
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
            self._bytes -= _nbytes(received)
            self._changed.notify_all()
            return received

    def close(self, for_good: bool = True) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout=10)
        self._source.close(for_good=for_good)

    # --- the fetching thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopped:
                received = self._source.get(timeout_s=0.1)
                if received is not None:
                    self._admit(received)
                    self._saw(received.partition, received.next_offset)
                self._count_undecodable()
                self._carry_out_refusals()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _admit(self, received: Received) -> None:
        refusal = None
        try:
            self._check(received.trajectory)
        except Rejected as error:
            refusal = error
        if refusal is not None and refusal.reason == "run":
            with self._changed:
                self._refuse(received, refusal)  # no lease of this run's
            return
        one = _Early(received, refusal)
        with self._changed:
            while self._is_full(received) and not self._stopped:
                self._changed.wait(timeout=1.0)
            self._judge(one)
            if one not in self._early:
                return
        asked = self._ask()  # an answer may come at once, from this very call
        with self._changed:
            one.asked = asked
            self._judge_again()

    def _count_undecodable(self) -> None:
        for record in self._source.take_undecodable():
            if not self._saw(record.partition, record.next_offset):
                with self._changed:
                    self._counted.append(Refused(record.reason, None))

    def _saw(self, partition: int, next_offset: int) -> bool:
        """Whether a former life of the learner saw that record too."""
        self.examined[partition] = max(next_offset, self.examined.get(partition, 0))
        return 0 < next_offset <= self._examined_before.get(partition, 0)

    def _carry_out_refusals(self) -> None:
        """Letters to the dead are written by the thread that reads: carriers need not be told from elsewhere."""
        with self._changed:
            refused, self._refused = self._refused, []
        for received, refusal in refused:
            self._source.reject(received, refusal.reason, str(refusal))

    # --- holding the lock ------------------------------------------------------------------------------------------

    def _judge_again(self) -> None:
        early, self._early = self._early, []
        for one in early:
            self._bytes -= _nbytes(one.received)
            self._judge(one)
        self._changed.notify_all()

    def _judge(self, one: _Early) -> None:
        """Into the queue, or refused, or early (again)."""
        received, refusal = one.received, one.refusal
        trajectory = received.trajectory
        try:
            known = self._leases.judge(trajectory, one.asked)
        except Rejected as error:
            self._refuse(received, refusal or error)  # what is wrong in itself says more
            return
        if known:
            self._leases.spend(trajectory.lease)
        if known and refusal is not None:
            self._refuse(received, refusal, trajectory.lease)
            return
        self._bytes += _nbytes(received)
        if known:
            heapq.heappush(self._queue, (trajectory.lease, self._number, received))
            self._number += 1
            self._changed.notify_all()
        else:
            self._early.append(one)

    def _refuse(self, received: Received, refusal: Rejected, lease: int | None = None) -> None:
        self._metrics.inc("learner_rejected_total", reason=refusal.reason)
        again = 0 < received.next_offset <= self._examined_before.get(received.partition, 0)
        if lease is not None or not again:
            self._counted.append(Refused(refusal.reason, lease))
            if refusal.reason != "duplicate":
                self._refused.append((received, refusal))

    def _is_full(self, received: Received) -> bool:
        if len(self._early) >= MAX_EARLY:
            return True
        return bool(self._queue or self._early) and self._bytes + _nbytes(received) > self._queue_bytes


def _nbytes(received: Received) -> int:
    return received.nbytes or received.trajectory.nbytes
