"""How weights travel: the two halves, whichever carrier is behind them.

    publisher.publish(weights, admit_until=64)          # the learner, once per version
    lease = subscriber.next(have_version, timeout_s=1)   # an actor, once per fragment

``admit_until`` is how many fragments in all may ever have been begun by now (docs/architecture.md, Pacing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.common.types import Lease, Weights

#: Latest leases an actor names when it asks: what a server started anew learns from.
REPORTED_LEASES = 16


@dataclass(frozen=True, slots=True)
class Progress:
    """The learner's counters that travel with every publication; they also rebuild the ledger after a restart.

    ``admit_until``: fragments that may ever have been begun. ``next_lease``: one above the highest lease number the
    learner has seen (0 at the start). ``consumed``: fragments trained on or rejected. ``backlog``: fragments known to
    wait, in the carrier or in the learner's hands, not consumed yet. ``complete``: ``consumed + backlog`` counts every
    fragment that has been put, so that the ledger may give up a lease whose fragment has been missing for long.
    """

    admit_until: int
    next_lease: int = 0
    consumed: int = 0
    backlog: int = 0
    complete: bool = False


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Where the pacing ledger (paramserver/ledger.py) stands; what a learner knows of it when a server is started anew.

    ``out``: the leases not known to be delivered, oldest first, each with its actor_id and incarnation.
    """

    next_lease: int = 0
    begun: int = 0
    admit_until: int = 0
    out: tuple[tuple[int, int, int], ...] = ()


class Publisher(Protocol):
    """The learner's half."""

    def publish(self, weights: Weights, progress: Progress) -> None:
        """Make a version current. Overlaps with the caller: it may return before the server has it, but waits for the
        previous publication first. Raises :class:`Fenced` when a newer learner epoch has published, and
        :class:`TransportError` when the server could not be reached for good."""

    def admit(self, progress: Progress) -> None:
        """Raise ``admit_until`` within the current version (a rejected fragment must not starve the learner)."""

    def close(self) -> None: ...


class Subscriber(Protocol):
    """An actor's half. One subscriber serves one rollout worker (``actor_id``, ``incarnation``)."""

    def next(self, have_version: int, timeout_s: float) -> Lease | None:
        """A lease to collect one more fragment, with newer weights if the server has any newer than ``have_version``
        (-1: none yet). Blocks up to ``timeout_s``; None when no lease came. Asking again tells the server that the
        fragment of the previous lease has been put. Raises :class:`UsageError` for another run's server."""

    def close(self) -> None: ...
