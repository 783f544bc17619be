"""Pacing: who may begin one more fragment. Pure: no clock, no socket, no thread.

    admit_until  fragments that may ever have been begun (the learner raises it with every version)
    begun        fragments the learner accepted + leases that are out
    a lease is handed out while begun < admit_until, as it is and as it was when the oldest fragment in the making began

The second bound is for slow actors: without it their fragments would be overtaken by any number of newer ones and be
stale when they come. With it, while a fragment begun at version p is in the making, too few others exist to go beyond
p + max_staleness. Once a newcomer has kept everybody waiting for a fragment that never came, newcomers are not waited
for any more while others deliver (for ``WARY_S``): the first fragment of a slow one may then come too late.

The learner says which leases' fragments came to it (``Progress.spent``), so the account is exact, and needs nobody's
word but the learner's: a lease is *held* by a worker, then *put* (its worker says so when it asks again), then spent,
or given up. A fragment that comes after all, of a lease that was given up, is accepted and counts again. Leases are
given up

- when their worker is not heard of for ``lost_after_s``, takes its leave, or has a new life;
- when they are held for ``lease_max_s``, though their worker is heard of (0: 20 times the usual, at least 10 s);
- when they were put ``delivery_s`` ago, and the learner says since, and once more, that nothing waits in the carrier:
  lost on the way. (Once is not enough: a process that stood still ends a sentence that it began long ago.)

A server that was started anew knows from the learner which leases its predecessor had out, and gives them again to
workers that never received them. For those the learner had not heard of, see unheard.py; their numbers are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.common.lease_set import LeaseSet
from headrace.common.weights.base import LedgerState, Progress
from headrace.paramserver.outstanding import Lease, Outstanding, WaitedFor
from headrace.paramserver.shares import Shares
from headrace.paramserver.unheard import Unheard
from headrace.paramserver.workers import Worker, Workers

#: More leases than can have been handed out since the learner last heard of it.
SKIPPED = 1 << 32
#: Where server and learner both died nobody knows how many were: each epoch of the learner has so many of its own.
EPOCH_LEASES = 1 << 44
#: How long newcomers are not waited for after one that did not deliver.
WARY_S = 600.0
#: A lease is overdue after so many times the usual, but not before.
OVERDUE_TIMES, OVERDUE_LEAST_S = 20.0, 10.0


class Ledger:
    """Times are seconds of any monotonic clock, given by the caller. Lease numbers and counts start at 0.

    ``per_peer``: how many leases one peer may have undelivered, see shares.py.
    """

    #: How many workers take turns; 0: they come as they are ready (lockstep.py is the other kind).
    lockstep = 0
    #: Numbers skipped by a server that was started anew.
    skips = SKIPPED

    def __init__(
        self,
        *,
        lost_after_s: float = 3.5,
        delivery_s: float = 5.0,
        settle_s: float = 5.0,
        lease_max_s: float = 0.0,
        per_peer: int = 0,
    ) -> None:
        self._delivery_s, self._settle_s, self._lease_max_s = delivery_s, settle_s, lease_max_s
        self.workers = Workers(self.lockstep, lost_after_s)
        self.next_lease = self.admit_until = 0
        self.issued_total = self.expired_total = 0
        self.spent = LeaseSet()
        self._shares = Shares(per_peer)
        self.out = Outstanding(self._shares)
        self._wary_until_s = float("-inf")
        self._accepted = self._waiting = 0
        self._reads_again = self._nothing_waits = False
        self._missed_until_s = float("-inf")  # what was put before was missed when the learner last said so
        self._unheard = Unheard()

    # --- the learner's side ----------------------------------------------------------------------------------------

    def admit(self, progress: Progress, now_s: float) -> None:
        """Take over the learner's counters within its epoch. ``admit_until`` never goes down."""
        self.admit_until = max(self.admit_until, progress.admit_until)
        self._accepted, self.spent = progress.accepted, LeaseSet(progress.spent)
        self._nothing_waits = progress.complete and progress.backlog == 0
        self._reads_again &= not self._nothing_waits
        self._waiting = progress.backlog if self._reads_again else 0
        for lease in [lease for lease in self.out if lease.number in self.spent]:
            if lease.number in self.out.held:
                self.out.finished(lease, now_s)
            self.out.close(lease)
            self.workers.prove(lease.worker, True)
        self._give_up_put(now_s)

    def rebuild(self, progress: Progress, now_s: float, known: LedgerState | None = None, epoch: int = 1) -> None:
        """Begin a learner's ``epoch``, or a server's life (``known``: how its predecessor stood when last heard)."""
        self.admit_until = progress.admit_until
        self._reads_again = known is None  # what it read before, and did not train on, counts as it waits in the log
        first = max(progress.next_lease, known.next_lease if known else 0)
        if known is not None:
            self.next_lease = first + self.skips
            self._succeed(known, progress, range(first, self.next_lease), now_s)
        elif self.next_lease < first or not self.issued_total:
            self.next_lease = max(self.next_lease, first, (epoch - 1) * EPOCH_LEASES if self.skips else 0)
        self.admit(progress, now_s)

    def state(self, heard_lease: int = 0) -> LedgerState:
        """``heard_lease``: leases out below it need not be told, but for those a former server handed out unheard."""
        out = sorted(self.out, key=lambda lease: lease.number)
        news = [x for x in out if x.number >= heard_lease or self._unheard.covers(x.number)]
        told = ((x.number, x.worker.actor_id, x.worker.incarnation) for x in news)
        known = self.begun - self._unheard.held_back
        return LedgerState(self.next_lease, known, self._limit, tuple(told), self.workers.alive)

    # --- the actors' side ------------------------------------------------------------------------------------------

    @property
    def begun(self) -> int:
        return self._accepted + self._waiting + len(self.out) + self._unheard.held_back

    @property
    def room(self) -> bool:
        """Whether asking can help anybody."""
        return self.begun < self._limit

    def waited_for(self) -> WaitedFor | None:
        """Whose fragment is missing, if anybody's is."""
        return self.out.held_longest()

    @property
    def lease_max_s(self) -> float:
        """How long a lease may be held."""
        if self._lease_max_s:
            return self._lease_max_s
        usual_s = self.out.usual_s
        return max(OVERDUE_LEAST_S, 2 * self._delivery_s if usual_s is None else OVERDUE_TIMES * usual_s)

    def begin(
        self, actor_id: int, incarnation: int, now_s: float, received: Sequence[int] = (), peer: str = ""
    ) -> int | None:
        """The next lease for this life of a worker, or None: wait.

        ``received``: the latest leases it received, newest last; their fragments have been put. One that it should
        hold and that is not among them was lost on the way and is given again. Numbers that it cannot have received
        change nothing. Raises what :meth:`Workers.meet` raises.
        """
        worker, former = self.workers.meet(actor_id, incarnation, now_s, peer)
        self._replace(former)
        self._unheard.called(actor_id)
        held = self._held_by(worker)
        if held is not None and held.number not in received:
            self.out.hold_anew(held, self.admit_until)
            return held.number
        self._deliver(worker, received, now_s)
        number = self._choose(worker, received, now_s)
        if number is not None:
            self.next_lease = max(self.next_lease, number + 1)
            self.issued_total += 1
            self.out.hold(self._lease(number, worker, now_s))
            worker.lease = number
        return number

    def beat(
        self, actor_id: int, incarnation: int, now_s: float, received: Sequence[int] = (), leaving: bool = False
    ) -> None:
        """A worker is alive; or takes its leave, and what it holds is free. Raises :class:`Fenced`."""
        self.workers.beat(actor_id, incarnation, now_s)
        worker = self.workers.present(actor_id, incarnation)
        if worker is not None and leaving:
            held = self._held_by(worker)
            self._deliver(worker, received, now_s)
            if held is not None and held.number in self.out.held:
                self._give_up(held)
            self.workers.forget(now_s, actor_id)

    def join(self, n: int, incarnation: int, now_s: float, peer: str) -> list[int]:
        """Numbers for ``n`` workers; none: try again."""
        joined = self.workers.join(n, incarnation, now_s, peer)
        for _, former in joined:
            self._replace(former)
        return [worker.actor_id for worker, _ in joined]

    def expire(self, now_s: float) -> None:
        """Give up what is lost. To be called now and then."""
        for lease in list(self.out.held.values()):
            if self.workers.is_lost(lease.worker, now_s) or now_s - lease.since_s >= self.lease_max_s:
                if not lease.worker.proven:
                    self._be_wary(now_s)
                self.workers.prove(lease.worker, False)
                self._give_up(lease)
        self.expired_total += self._unheard.settle(now_s)
        self.workers.forget(now_s)

    # --- inside ----------------------------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        """admit_until, or what it was when the oldest fragment in the making that others wait for was begun."""
        bounds = (self.admit_until, self.out.bound, self._unheard.bound)
        return min(bound for bound in bounds if bound is not None)

    def _choose(self, worker: Worker, received: Sequence[int], now_s: float) -> int | None:
        if not self.room:
            return None
        others_call, others_deliver = self.workers.others(worker.peer, now_s), self.workers.any_proven(now_s)
        allowed = self._shares.allow(worker.peer, worker.proven, others_call=others_call, others_deliver=others_deliver)
        return self.next_lease if allowed else None

    def _deliver(self, worker: Worker, received: Sequence[int], now_s: float) -> None:
        """What this worker has put. A lease of its own that was given up counts again; so does what a former server
        must have given it, as long as that server can have had so many out."""
        number, worker.lease = worker.lease, None
        if number is not None and number in received:
            if (held := self.out.held.get(number)) is not None:
                self.out.finished(held, now_s)
                self.out.close(held)
            if self._is_missing(number):
                self.out.deliver(self._lease(number, worker, now_s))
        for number in received:
            if self._is_missing(number) and self._unheard.turns_up(number):
                self.out.deliver(self._lease(number, worker, now_s))

    def _be_wary(self, now_s: float) -> None:
        """A newcomer did not deliver: they are not waited for, those at work now included."""
        self._wary_until_s = now_s + WARY_S
        for lease in self.out.held.values():
            lease.binds &= lease.worker.proven

    def _replace(self, former: Worker | None) -> None:
        """A life that was replaced will not deliver what it holds."""
        if former is not None and (held := self._held_by(former)) is not None:
            self._give_up(held)

    def _held_by(self, worker: Worker) -> Lease | None:
        return None if worker.lease is None else self.out.held.get(worker.lease)

    def _is_missing(self, number: int) -> bool:
        return number not in self.out and number not in self.spent

    def _lease(self, number: int, worker: Worker, now_s: float) -> Lease:
        binds = worker.proven or now_s >= self._wary_until_s or not self.workers.any_proven(now_s)
        return Lease(number, worker, self.admit_until, now_s, worker.peer, worker.proven, binds)

    def _give_up(self, lease: Lease) -> None:
        self.out.close(lease)
        self.expired_total += 1

    def _give_up_put(self, now_s: float) -> None:
        """Asked when the learner has just said what came and what waits."""
        while self.out.put and self._nothing_waits:
            oldest = next(iter(self.out.put.values()))
            if oldest.since_s > self._missed_until_s:
                break
            self.workers.prove(oldest.worker, False)
            self._give_up(oldest)
        self._missed_until_s = now_s - self._delivery_s if self._nothing_waits else float("-inf")

    def _succeed(self, known: LedgerState, progress: Progress, skipped: range, now_s: float) -> None:
        self._unheard = Unheard(known, progress.admit_until, skipped, now_s + self._settle_s)
        self.workers.join_from(now_s + self._settle_s)
        spent = LeaseSet(progress.spent)
        for number, actor_id, incarnation in known.out:
            if number not in spent:
                worker = self.workers.recall(actor_id, incarnation, now_s)
                worker.lease, lease = number, self._lease(number, worker, now_s)
                lease.limit = known.limit
                self.out.hold(lease)
