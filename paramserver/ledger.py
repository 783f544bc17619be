"""Pacing: who may begin one more fragment. Pure: no clock, no socket, no thread.

    admit_until  fragments that may ever have been begun (the learner raises it with every version)
    begun        leases handed out, less those whose actor is gone
    a lease is handed out while begun < admit_until, as it is and as it was when the oldest lease still out was begun

The second bound is for slow actors: without it their fragments would be overtaken by any number of newer ones and be
stale when they come. With it, while a fragment begun at version p is out, too few others exist to go beyond
p + max_staleness.

With ``workers = N`` the ledger is in lockstep: lease n belongs to worker ``n % N``, whose actor_id is that index, and
nobody else can take it. There a lease never expires: a new life of the actor gets the same number again.

How much has really been begun is known exactly while nobody dies. Where it is not, the count is corrected:

- an actor's lease expires (``ttl_s``, or a new life of it asks) and its fragment has been put after all: the actor says
  so when it asks again, or the learner's counters show it;
- a fragment that was put is lost with its actor before the carrier had it: the learner, which counts every fragment
  that came, misses it for ``ttl_s``;
- the server was started anew: the leases its predecessor had out are known from the learner, and given again to actors
  that never received them; those it may have handed out after the learner last heard of it count as begun until
  ``settle_s`` has passed, and go on counting where an actor reports them. Its numbers are skipped.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.common.errors import Fenced, UsageError
from headrace.common.weights.base import LedgerState, Progress

#: Numbers skipped by a server that was started anew: more than any handed out between two answers to its learner.
SKIPPED = 1 << 16
#: An actor not heard of for so many ttl_s is forgotten.
FORGET_TTLS = 100


@dataclass(slots=True)
class _Actor:
    """One rollout worker's present life. ``lease``: handed out, not known to be delivered. ``expired``: given up for
    lost. ``recalled``: known from the server's predecessor only."""

    actor_id: int
    incarnation: int
    heard_s: float
    lease: int | None = None
    expired: bool = False
    limit: int = 0
    recalled: bool = False
    former: deque[int] = field(default_factory=lambda: deque(maxlen=16))


class Ledger:
    """Times are seconds of any monotonic clock, given by the caller. Lease numbers and counts start at 0."""

    def __init__(self, workers: int = 0, ttl_s: float = 60.0, settle_s: float = 5.0) -> None:
        self.workers, self.ttl_s, self.settle_s = workers, ttl_s, settle_s
        self.next_lease = self.begun = self.admit_until = 0
        self.issued_total = self.expired_total = 0
        self._actors: OrderedDict[int, _Actor] = OrderedDict()  # least recently heard first
        self._out: OrderedDict[int, _Actor] = OrderedDict()  # lease -> its actor, oldest first
        self._next_of = list(range(workers))
        self._skipped, self._reported = range(0), set[int]()
        self._held_back, self._held_back_until_s = 0, 0.0  # skipped numbers that count as begun
        self._mark: tuple[float, int] | None = None

    # --- the learner's side ----------------------------------------------------------------------------------------

    def admit(self, progress: Progress, now_s: float) -> None:
        """Take over the learner's counters within its epoch. ``admit_until`` never goes down."""
        self.admit_until = max(self.admit_until, progress.admit_until)
        if self.workers:
            return
        self.begun = max(self.begun, progress.consumed + progress.backlog)  # an expired lease was delivered after all
        if progress.complete:
            self._miss(progress.consumed + progress.backlog, now_s)

    def rebuild(self, progress: Progress, now_s: float, known: LedgerState | None = None) -> None:
        """Begin a learner's epoch, or a server's life (``known``: how its predecessor stood when last heard)."""
        self.expire(now_s)
        came = progress.consumed + progress.backlog
        self.admit_until, self._mark = progress.admit_until, None
        if self.workers:
            self._rewind(progress.consumed, came)
            return
        self.next_lease = max(self.next_lease, progress.next_lease)
        if known is None:
            self.begun = came + len(self._out) + self._held_back
        else:
            self._succeed(known, came, now_s)

    @property
    def state(self) -> LedgerState:
        held = () if self.workers else ((lease, a.actor_id, a.incarnation) for lease, a in self._out.items())
        return LedgerState(self.next_lease, self.begun, self.admit_until, tuple(held))

    # --- the actors' side ------------------------------------------------------------------------------------------

    @property
    def room(self) -> bool:
        """Whether asking can help anybody."""
        return bool(self.workers) or self.begun < self._limit

    @property
    def _limit(self) -> int:
        """admit_until, or what it was when the oldest lease still out was begun."""
        oldest = next(iter(self._out.values()), None)
        return self.admit_until if oldest is None else min(self.admit_until, oldest.limit)

    def begin(self, actor_id: int, incarnation: int, now_s: float, received: Sequence[int] = ()) -> int | None:
        """The next lease for this life of an actor, or None: wait.

        ``received``: the latest leases it received, newest last; their fragments have been put. One that it should
        hold and that is not among them was lost on the way and is given again. Raises :class:`Fenced` for a life that
        another one has replaced, and :class:`UsageError` for a worker that lockstep does not have.
        """
        self.expire(now_s)
        if self.workers and not 0 <= actor_id < self.workers:
            raise UsageError(f"actor {actor_id}: lockstep has the workers 0 to {self.workers - 1}")
        actor = self._actors.get(actor_id)
        if actor is None or actor.incarnation != incarnation:
            actor = self._new_life(actor_id, actor, incarnation, received)
        elif actor.recalled:
            actor.recalled = False
            self._first_contact(actor_id, received)
        if actor.lease is not None:
            if actor.lease not in received and not actor.expired:
                actor.heard_s, actor.limit = now_s, self.admit_until  # its fragment begins only now
                self._out.move_to_end(actor.lease)
                return actor.lease
            self._delivered(actor, came=actor.lease in received)
        actor.heard_s = now_s
        self._actors.move_to_end(actor_id)
        return self._issue(actor_id, actor)

    def expire(self, now_s: float) -> None:
        """Give up leases older than ``ttl_s``, unknown ones after ``settle_s``, and actors long gone."""
        while self._out and not self.workers:
            lease, actor = next(iter(self._out.items()))
            if now_s - actor.heard_s < self.ttl_s:
                break
            del self._out[lease]
            actor.expired = True
            self._give_up(1)
        if self._held_back and now_s >= self._held_back_until_s:
            self._give_up(self._held_back)
            self._held_back = 0
        while self._actors and not self.workers:
            actor_id, actor = next(iter(self._actors.items()))
            if now_s - actor.heard_s < FORGET_TTLS * self.ttl_s:
                break
            del self._actors[actor_id]

    # --- inside ----------------------------------------------------------------------------------------------------

    def _issue(self, actor_id: int, actor: _Actor) -> int | None:
        lease = self._next_of[actor_id] if self.workers else self.next_lease
        if (lease if self.workers else self.begun) >= (self.admit_until if self.workers else self._limit):
            return None
        if self.workers:
            self._next_of[actor_id] = lease + self.workers
        self.next_lease = max(self.next_lease, lease + 1)
        self.begun += 1
        self.issued_total += 1
        actor.lease, actor.expired, actor.limit = lease, False, self.admit_until
        self._out[lease] = actor
        return lease

    def _delivered(self, actor: _Actor, came: bool) -> None:
        assert actor.lease is not None
        self._out.pop(actor.lease, None)
        if actor.expired and came:  # it was given up too early
            self.begun += 1
        actor.lease = None

    def _succeed(self, known: LedgerState, came: int, now_s: float) -> None:
        first = max(self.next_lease, known.next_lease)
        self._skipped, self.next_lease = range(first, first + SKIPPED), first + SKIPPED
        self._held_back = min(max(0, known.admit_until - known.begun), SKIPPED)
        self._held_back_until_s = now_s + self.settle_s
        self.begun = max(came, known.begun) + self._held_back
        for lease, actor_id, incarnation in known.out:
            actor = _Actor(actor_id, incarnation, now_s, lease, limit=known.admit_until, recalled=True)
            self._actors[actor_id] = self._out[lease] = actor

    def _new_life(self, actor_id: int, former: _Actor | None, incarnation: int, received: Sequence[int]) -> _Actor:
        actor = _Actor(actor_id, incarnation, 0.0)
        if former is None:
            self._first_contact(actor_id, received)
        else:
            if incarnation in former.former:
                raise Fenced(f"actor {actor_id}: another process with this id has taken over")
            actor.former.extend([*former.former, former.incarnation])
            self._take_back(actor_id, former)
        self._actors[actor_id] = actor
        return actor

    def _take_back(self, actor_id: int, gone: _Actor) -> None:
        if gone.lease is None or gone.expired:
            return
        del self._out[gone.lease]
        if self.workers:
            self._next_of[actor_id] = gone.lease
        self._give_up(1)

    def _first_contact(self, actor_id: int, received: Sequence[int]) -> None:
        """An actor that lived before this server did: what it put lately may not have been counted yet."""
        for lease in received:
            if self.workers:
                self._next_of[actor_id] = max(self._next_of[actor_id], lease + self.workers)
            elif lease >= self.next_lease:
                self.next_lease = lease + 1
                self.begun += 1
            elif lease in self._skipped and lease not in self._reported:
                self._reported.add(lease)
                if self._held_back:
                    self._held_back -= 1
                else:
                    self.begun += 1

    def _give_up(self, leases: int) -> None:
        self.begun -= leases
        self.expired_total += leases

    def _miss(self, came: int, now_s: float) -> None:
        """What had been put ``ttl_s`` ago and has not come by now is lost."""
        if self._mark is not None:
            at_s, delivered = self._mark
            if now_s - at_s < self.ttl_s:
                return
            self._give_up(max(0, delivered - came))
        self._mark = (now_s, self.begun - len(self._out) - self._held_back)

    def _rewind(self, consumed: int, came: int) -> None:
        """Lockstep: go on where the workers are if the log kept what they put, else from what was trained on."""
        delivered = sum((n - s) // self.workers for s, n in enumerate(self._next_of)) - len(self._out)
        if came < delivered or not self._actors:
            self._out.clear()
            for actor in self._actors.values():
                actor.lease = None
            self._next_of = [consumed + (s - consumed) % self.workers for s in range(self.workers)]
        self.begun = sum((n - s) // self.workers for s, n in enumerate(self._next_of))
        self.next_lease = max(self._next_of)
