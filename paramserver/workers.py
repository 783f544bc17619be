"""The rollout workers a parameter server knows: which process life of each is the present one, and when it was heard.

A worker's number (``actor_id``) is stable; its process lives (``incarnation``, 63 random bits) replace each other. A
life that was replaced is refused for good. Numbers and peers are what others claim: as many are remembered as fit, the
ones heard of last.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import takewhile

from headrace.common.errors import Fenced, HeadraceError, UsageError

#: Workers remembered, and for how long after they were last heard of.
MAX_WORKERS, FORGET_S = 1 << 16, 600.0
#: Numbers a worker may have outside lockstep.
MAX_ACTOR_ID = 1 << 31
#: Replaced lives remembered of each worker.
FORMER_LIVES = 16


class Busy(HeadraceError):
    """Not now; another time."""


@dataclass(slots=True)
class Worker:
    """A worker's present life. ``lease``: the latest it was given. ``peer``: from where it calls, empty: not known.
    ``proven``: its latest fragments came (:meth:`Workers.prove`)."""

    actor_id: int
    incarnation: int
    peer: str
    heard_s: float
    lease: int | None = None
    proven: bool = False
    former: deque[int] = field(default_factory=lambda: deque(maxlen=FORMER_LIVES))


class Workers:
    """``lockstep`` > 0: there are so many, numbered from 0. Times are seconds of any monotonic clock."""

    def __init__(self, lockstep: int, lost_after_s: float) -> None:
        self._lockstep, self._lost_after_s = lockstep, lost_after_s
        self._known: OrderedDict[int, Worker] = OrderedDict()  # least recently heard first
        self._peers: OrderedDict[str, float] = OrderedDict()
        self._proven: OrderedDict[int, None] = OrderedDict()  # least recently heard first
        self._join_from_s = float("-inf")

    def __len__(self) -> int:
        return len(self._known)

    @property
    def alive(self) -> int:
        """How many were heard of about when the last one was."""
        newest_s = next(reversed(self._known.values())).heard_s if self._known else 0.0
        return sum(1 for _ in takewhile(lambda w: not self.is_lost(w, newest_s), reversed(self._known.values())))

    def meet(self, actor_id: int, incarnation: int, now_s: float, peer: str) -> tuple[Worker, Worker | None]:
        """The worker that calls, and the life it replaces, if this is the first call of a new one.

        Raises :class:`UsageError` for a number nobody can have, :class:`Fenced` for a life that was replaced, and
        :class:`Busy` where another machine wants the number of a worker that is alive.
        """
        if not 0 <= actor_id < (self._lockstep or MAX_ACTOR_ID):
            right = f"lockstep has the workers 0 to {self._lockstep - 1}" if self._lockstep else "numbers begin at 0"
            raise UsageError(f"actor {actor_id}: {right}")
        known = self._known.get(actor_id)
        if known is not None and known.incarnation == incarnation:
            self._heard(known, now_s)
            return known, None
        worker = Worker(actor_id, incarnation, peer, now_s)
        if known is not None:
            if incarnation in known.former:
                raise Fenced(f"actor {actor_id}: another process with this id has taken over")
            if known.peer and peer != known.peer and not self.is_lost(known, now_s):
                raise Busy(f"actor {actor_id}: a process on another machine has this id and is alive")
            worker.former.extend([*known.former, known.incarnation])
        self._known[actor_id] = worker
        self._proven.pop(actor_id, None)
        self._heard(worker, now_s)
        while len(self._known) > MAX_WORKERS:
            self._drop(next(iter(self._known)))
        return worker, known

    def recall(self, actor_id: int, incarnation: int, now_s: float) -> Worker:
        """A worker that a former server knew: taken for one that delivers until it does not."""
        self._drop(actor_id)
        worker = self._known[actor_id] = Worker(actor_id, incarnation, "", now_s)
        self.prove(worker, True)
        return worker

    def present(self, actor_id: int, incarnation: int) -> Worker | None:
        """The worker, if this is its present life."""
        known = self._known.get(actor_id)
        return known if known is not None and known.incarnation == incarnation else None

    def heard_s(self, actor_id: int, else_s: float) -> float:
        """When the worker was last heard of; ``else_s`` if never."""
        known = self._known.get(actor_id)
        return else_s if known is None else known.heard_s

    def beat(self, actor_id: int, incarnation: int, now_s: float) -> None:
        """It is alive. Raises :class:`Fenced` for a life that was replaced."""
        known = self._known.get(actor_id)
        if known is not None and incarnation in known.former:
            raise Fenced(f"actor {actor_id}: another process with this id has taken over")
        if known is not None and known.incarnation == incarnation:
            self._heard(known, now_s)

    def join(self, n: int, incarnation: int, now_s: float, peer: str) -> list[tuple[Worker, Worker | None]]:
        """``n`` workers with numbers nobody alive has, each with the life it replaces; none if there are too few."""
        if now_s < self._join_from_s or not 0 < n <= MAX_WORKERS:
            return []
        free, number = list[int](), 0
        while len(free) < n and number < (self._lockstep or len(self._known) + n):
            known = self._known.get(number)
            if known is None or self.is_lost(known, now_s):
                free.append(number)
            number += 1
        return [self.meet(number, incarnation, now_s, peer) for number in free] if len(free) == n else []

    def join_from(self, at_s: float) -> None:
        """Give no numbers before: those whom a former server knew are to come first."""
        self._join_from_s = at_s

    def is_lost(self, worker: Worker, now_s: float) -> bool:
        """Whether it has not been heard of for too long."""
        return now_s - worker.heard_s >= self._lost_after_s

    def prove(self, worker: Worker, delivers: bool) -> None:
        """What it was given came, or did not come."""
        worker.proven = delivers
        if self._known.get(worker.actor_id) is not worker:
            return  # a life that was replaced says nothing of the present one
        if delivers:
            self._proven[worker.actor_id] = None
        else:
            self._proven.pop(worker.actor_id, None)

    def any_proven(self, now_s: float) -> bool:
        """Whether somebody delivers who is alive."""
        newest = next(reversed(self._proven), None)
        return newest is not None and not self.is_lost(self._known[newest], now_s)

    def others(self, peer: str, now_s: float) -> bool:
        """Whether anybody calls from elsewhere than ``peer``."""
        newest = next((heard_s for other, heard_s in reversed(self._peers.items()) if other != peer), None)
        return newest is not None and now_s - newest < self._lost_after_s

    def forget(self, now_s: float, actor_id: int | None = None) -> None:
        """``actor_id``, who has taken its leave; and all who have not been heard of for very long."""
        if actor_id is not None:
            self._drop(actor_id)
        while self._known and now_s - next(iter(self._known.values())).heard_s >= FORGET_S:
            self._drop(next(iter(self._known)))

    def _drop(self, actor_id: int) -> None:
        self._known.pop(actor_id, None)
        self._proven.pop(actor_id, None)

    def _heard(self, worker: Worker, now_s: float) -> None:
        worker.heard_s = now_s
        self._known.move_to_end(worker.actor_id)
        if worker.actor_id in self._proven:
            self._proven.move_to_end(worker.actor_id)
        if worker.peer:
            self._peers[worker.peer] = now_s
            self._peers.move_to_end(worker.peer)
            while len(self._peers) > MAX_WORKERS:
                self._peers.popitem(last=False)
