"""What the parameter server knows: the current version, who may publish, and the pacing ledger. Pure: no I/O, no clock.

    publish -> fence -> current version (latest wins) -> ledger.admit
    next    -> lease from the ledger -> (lease, the current version if the actor has an older one)

The version's content is whatever the caller carries: chunk messages (service.py) or Weights (inprocess.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.common.errors import Fenced, UsageError
from headrace.common.weights.base import LedgerState, Progress
from headrace.paramserver.ledger import Ledger

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Writer:
    """Who publishes: the run, the learner's epoch, and the process (63 random bits; one per epoch)."""

    run_id: str
    learner_epoch: int
    id: int


@dataclass(frozen=True, slots=True)
class Version(Generic[T]):
    """A published version. ``digest`` tells a repeated publication from another one of the same number."""

    learner_epoch: int
    number: int
    digest: bytes
    content: T

    @property
    def order(self) -> tuple[int, int]:
        return self.learner_epoch, self.number


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """An actor asks for a lease. ``received``: its latest leases; ``have``: (epoch, version), each -1 if not known;
    ``peer``: from where it calls."""

    run_id: str
    actor_id: int
    incarnation: int
    received: tuple[int, ...]
    have: tuple[int, int]
    peer: str = ""


@dataclass(frozen=True, slots=True)
class LeaseGrant(Generic[T]):
    """A lease to begin a fragment; ``version`` only where the actor has an older one."""

    lease: int
    learner_epoch: int
    version: Version[T] | None


class Versions(Generic[T]):
    """The newest version. ``run_id``: the only run served; empty: that of the first version."""

    def __init__(self, run_id: str = "") -> None:
        self.run_id = run_id
        self.current: Version[T] | None = None
        self.finished = False  # the learner has come to its end in the present epoch

    def check_run(self, run_id: str) -> None:
        if self.run_id and run_id != self.run_id:
            raise UsageError(f"this parameter server serves run {self.run_id!r}, not {run_id[:64]!r}")

    def newer_than(self, have: tuple[int, int]) -> Version[T] | None:
        """The current version if it is newer than ``have``."""
        current = self.current
        if current is None or have[1] < 0:
            return current
        newer = current.number > have[1] if have[0] < 0 else current.order > have
        return current if newer else None


class Store(Versions[T]):
    """The root's: versions as they are published, and the ledger."""

    def __init__(self, ledger: Ledger, run_id: str = "") -> None:
        super().__init__(run_id)
        self.ledger = ledger
        self._writer: Writer | None = None

    def check_writer(self, writer: Writer) -> None:
        """Raises :class:`UsageError` for another run and :class:`Fenced` for a learner that has been replaced."""
        self.check_run(writer.run_id)
        holder = self._writer
        if holder is None or writer.learner_epoch > holder.learner_epoch:
            return
        if writer.learner_epoch < holder.learner_epoch:
            raise Fenced(f"learner epoch {writer.learner_epoch} is over: {holder.learner_epoch} has taken over")
        if writer.id != holder.id:
            raise Fenced(f"another learner publishes in epoch {writer.learner_epoch}: only one may")

    def publish(
        self, writer: Writer, version: Version[T], progress: Progress, known: LedgerState | None, now_s: float
    ) -> bool:
        """Make ``version`` current; False if it was already. ``known``: the ledger as the writer last saw it.

        Raises what ``check_writer`` raises, and :class:`Fenced` for a version that goes back within its epoch.
        """
        self.check_writer(writer)
        self._check_order(version)
        fresh = self.current is None
        if fresh or self._writer is None or writer.learner_epoch > self._writer.learner_epoch:
            self.ledger.rebuild(progress, now_s, known if fresh else None, writer.learner_epoch)
        self.ledger.admit(progress, now_s)
        self.run_id, self._writer, self.finished = writer.run_id, writer, progress.finished
        is_new = self.current is None or version.order != self.current.order
        self.current = version if is_new else self.current
        return is_new

    def admit(self, writer: Writer, progress: Progress | None, now_s: float) -> None:
        """Move the counters within the current version; without ``progress`` only check the writer."""
        self.check_writer(writer)
        if progress is not None and self._writer is not None and self._writer == writer:
            self.ledger.admit(progress, now_s)
            self.finished = progress.finished

    def next(self, ask: LeaseRequest, now_s: float) -> LeaseGrant[T] | None:
        """A lease for one actor, or None: wait. Raises :class:`UsageError` and :class:`Fenced` as the ledger does."""
        self.check_run(ask.run_id)
        if self.current is None or self.finished or ask.have[0] > self.current.learner_epoch:
            return None  # nothing yet, nothing more, or from a learner that this actor knows to be replaced
        lease = self.ledger.begin(ask.actor_id, ask.incarnation, now_s, ask.received, ask.peer)
        if lease is None:
            return None
        return LeaseGrant(lease, self.current.learner_epoch, self.newer_than(ask.have))

    def _check_order(self, version: Version[T]) -> None:
        current = self.current
        if current is None or version.learner_epoch != current.learner_epoch:
            return
        if version.number < current.number:
            raise Fenced(f"version {version.number} after {current.number} in epoch {version.learner_epoch}: refused")
        if version.number == current.number and version.digest != current.digest:
            raise Fenced(f"version {version.number} of epoch {version.learner_epoch} exists with other content")
