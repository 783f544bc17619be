"""How weights travel: the two halves, whichever carrier is behind them.

    publisher.publish(weights, progress)                 # the learner, once per version
    lease = subscriber.next(have_version, timeout_s=1)   # an actor, once per fragment

``admit_until`` is how many fragments in all may ever have been begun by now (docs/architecture.md, Pacing).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from headrace.common.lease_set import Run
from headrace.common.types import Lease, Weights

#: Latest leases an actor names when it asks: what a server started anew learns from.
REPORTED_LEASES = 16


@dataclass(frozen=True, slots=True)
class Progress:
    """The learner's counters that travel with every publication; they also rebuild the ledger after a restart.

    ``admit_until``: fragments that may ever have been begun. ``next_lease``: the next number, as the learner last heard
    from a server (0 at the start). ``accepted``: fragments that were or will be trained on. ``spent``: the leases whose
    fragments came, accepted or refused, as runs (first, one beyond the last). ``backlog``: records known to wait in the
    carrier. ``complete``: that is what waits now, so that the ledger may give up a lease whose fragment has been
    missing for long. ``finished``: the learner has come to its end.
    """

    admit_until: int
    next_lease: int = 0
    accepted: int = 0
    spent: tuple[Run, ...] = ()
    backlog: int = 0
    complete: bool = False
    finished: bool = False


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Where the pacing ledger (paramserver/ledger.py) stands; what a learner knows of it when a server is started anew.

    ``begun``: of the leases known to be handed out. ``limit``: up to where they may be, those of fragments in the
    making considered. ``workers``: how many are alive (0: not known). ``out``: the leases whose fragments did not come
    yet, by number, each with its actor_id and incarnation.
    """

    next_lease: int = 0
    begun: int = 0
    limit: int = 0
    out: tuple[tuple[int, int, int], ...] = ()
    workers: int = 0


class Publisher(Protocol):
    """The learner's half."""

    def publish(self, weights: Weights, progress: Progress) -> None:
        """Make a version current. Overlaps with the caller: it may return before the server has it, but waits for the
        previous publication first. Raises :class:`Fenced` when a newer learner epoch has published, and
        :class:`TransportError` when the server could not be reached for good."""

    def admit(self, progress: Progress) -> None:
        """Tell the counters within the current version (a refused fragment must not starve the learner)."""

    def flush(self, timeout_s: float) -> None:
        """Wait until the server has the newest version and counters. Raises :class:`TransportError` if it has not."""

    def listen(self, hear: Callable[[LedgerState, int], None]) -> None:
        """Call ``hear(state, ticket)`` with every answer of the server, from any thread; ``ticket``: the latest that
        had been given out by :meth:`ask` when the answer was asked for."""

    def ask(self) -> int:
        """Ask the server soon how its ledger stands; the ticket of that answer. Any thread may call it."""

    def close(self) -> None: ...


class Subscriber(Protocol):
    """An actor's half. One subscriber serves one rollout worker (``actor_id``, ``incarnation``)."""

    def next(self, have_version: int, timeout_s: float) -> Lease | None:
        """A lease to collect one more fragment, with newer weights if the server has any newer than ``have_version``
        (-1: none yet). Blocks up to ``timeout_s``; None when no lease came. A lease whose fragment was not
        :meth:`delivered` is given again. Raises :class:`UsageError` for another run's server, and
        :class:`Finished` when the learner has ended the run."""

    def delivered(self) -> None:
        """The fragment of the latest lease has been put: the next question says so."""

    def close(self) -> None: ...
