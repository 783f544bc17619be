"""Pacing where nothing may be stale: lease n belongs to worker ``n % workers``, and nobody else can take it.

A worker's next lease is the lowest of its numbers whose fragment the learner does not have and that is not on its way.
So a lease never goes to another worker, however long it takes: whoever is missing holds everybody up, and is named
(``headrace status``). A new life of the worker gets the same number again; a fragment that comes twice is recognised by
it. What was put and is lost on the way is collected again after ``delivery_s``.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.common.weights.base import LedgerState, Progress
from headrace.paramserver.ledger import Ledger
from headrace.paramserver.outstanding import WaitedFor
from headrace.paramserver.workers import Worker


class LockstepLedger(Ledger):
    """A :class:`Ledger` for ``workers`` workers in turn; ``admit_until`` bounds the numbers themselves, but for those
    whose fragments were refused."""

    skips = 0

    def __init__(self, workers: int, *, lost_after_s: float = 3.5, delivery_s: float = 5.0, settle_s: float = 5.0):
        self.lockstep = workers
        super().__init__(lost_after_s=lost_after_s, delivery_s=delivery_s, settle_s=settle_s)
        self._refused = 0  # fragments of this run that came and were not trained on
        self._admitted_s = 0.0  # when numbers last became free
        self._unmet: set[int] = set()  # workers of the former server that have not called this one yet

    @property
    def room(self) -> bool:
        return True

    def rebuild(self, progress: Progress, now_s: float, known: LedgerState | None = None, epoch: int = 1) -> None:
        """A learner that came back has read what waited for it: what it does not have then is collected again."""
        self._unmet = set(range(self.lockstep)) if known is not None else set()
        for lease in list(self.out.put.values()):
            self.out.close(lease)
        super().rebuild(progress, now_s, known, epoch)

    @property
    def _bound(self) -> int:
        """Numbers below it may be handed out: a number whose fragment was refused makes no version, so there is one
        more for each."""
        return self.admit_until + self._refused

    def admit(self, progress: Progress, now_s: float) -> None:
        if progress.admit_until > self.admit_until:
            self._admitted_s = now_s
        came = sum(end - first for first, end in progress.spent)
        self._refused = max(0, came - progress.accepted)
        super().admit(progress, now_s)

    def waited_for(self) -> WaitedFor | None:
        """Here also a worker that could have a lease and does not ask for it."""
        found = [held] if (held := super().waited_for()) else []
        for actor_id in range(self.lockstep):
            number = self.spent.first_missing(actor_id, self.lockstep)
            if number < self._bound and number not in self.out:
                heard_s = self.workers.heard_s(actor_id, self._admitted_s)
                found.append(WaitedFor(actor_id, max(heard_s, self._admitted_s), heard_s))
        return min(found, key=lambda worker: worker.since_s, default=None)

    def expire(self, now_s: float) -> None:
        """Nothing expires by time alone."""

    def _choose(self, worker: Worker, received: Sequence[int], now_s: float) -> int | None:
        self._meet(worker, received, now_s)
        number = self.spent.first_missing(worker.actor_id, self.lockstep)
        while number in self.out.put:
            number = self.spent.first_missing(number + self.lockstep, self.lockstep)
        if number >= self._bound:
            return None
        if number in self.out.held:  # by a life that is long forgotten
            self._give_up(self.out.held[number])
        return number

    def _meet(self, worker: Worker, received: Sequence[int], now_s: float) -> None:
        """A worker that lived before this server did: what it put may be on its way."""
        if worker.actor_id in self._unmet:
            self._unmet.discard(worker.actor_id)
            for number in received:
                mine = 0 <= number < self._bound and number % self.lockstep == worker.actor_id
                if mine and self._is_missing(number):
                    self.out.deliver(self._lease(number, worker, now_s))


def make_ledger(workers: int, *, lease_max_s: float = 0.0, per_peer: int = 0, **times_s: float) -> Ledger:
    """Lockstep for ``workers`` > 0 workers; else they come as they are ready."""
    if workers:
        return LockstepLedger(workers, **times_s)
    return Ledger(lease_max_s=lease_max_s, per_peer=per_peer, **times_s)
