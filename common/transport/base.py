"""Carriers of trajectories: the two halves, and the shape of an address.

    sink = open_sink("local:///tmp/run/trajectories")        # an actor can only write
    sink.put(trajectory)

    source = open_source("kafka://127.0.0.1:9092/trajectories")   # a learner can only read
    while (received := source.get(timeout_s=1.0)) is not None:
        use(received.trajectory)
        positions[received.partition] = received.next_offset   # into the checkpoint, never before it is applied

The address picks the carrier; the client library behind it is imported only then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from headrace.common.types import Trajectory

#: partition -> the offset of the next record to read. A carrier without a log uses {} and ignores seeks.
Position = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded record and where the carrier had it. ``next_offset`` is where to go on after applying it, ``nbytes``
    the memory that it takes."""

    trajectory: Trajectory
    partition: int = 0
    next_offset: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A record that the carrier could not decode, and where it had it. It is in the dead-letter place already."""

    reason: str
    partition: int = 0
    next_offset: int = 0


class UndecodableRecords:
    """Those of a source that nobody has asked for yet, the latest 10,000. One thread adds, another takes."""

    def __init__(self) -> None:
        self._kept: deque[Undecodable] = deque(maxlen=10_000)

    def add(self, reason: str, partition: int = 0, next_offset: int = 0) -> None:
        self._kept.append(Undecodable(reason, partition, next_offset))

    def take(self) -> list[Undecodable]:
        return [self._kept.popleft() for _ in range(len(self._kept))]


class Sink(Protocol):
    """The writing half. Bounded in bytes: ``put`` blocks while the budget is full."""

    def put(self, trajectory: Trajectory, timeout_s: float | None = None) -> None:
        """Hand over one fragment. Raises :class:`Closed`, :class:`Rejected` (over the size cap), or
        :class:`TransportError` when the carrier failed for good or ``timeout_s`` passed."""

    def flush(self, timeout_s: float) -> None:
        """Wait until everything put is acknowledged. Raises :class:`TransportError` when time runs out."""

    def close(self, timeout_s: float) -> None:
        """Flush, then release everything. Idempotent; never waits longer than ``timeout_s``."""


class Source(Protocol):
    """The reading half: decodes, and sends what it cannot decode to ``dead_letter``.

    ``log_id``: names this life of the log, another one after it was deleted and made anew; "" without a log.
    """

    log_id: str

    def get(self, timeout_s: float) -> Received | None:
        """The next record, or None when ``timeout_s`` passed without one. Raises :class:`Closed`."""

    def position(self) -> Position:
        """Where reading begins: every partition of this source, as soon as it is opened (at the end of the log) and
        after a ``seek``. Make it durable before anything is published, then go on with each ``next_offset`` applied."""

    def seek(self, position: Position, log_id: str = "") -> None:
        """Go on from ``position`` (a checkpoint's). Partitions not named start at their oldest record: one that was
        there when the position was begun is named, one that was added since holds nothing older than the run.

        Raises :class:`LogLost` where the log does not reach so far, or is not the one that was called ``log_id``."""

    def commit(self, position: Position) -> None:
        """Make the consumer's progress visible to others. Never the authority: the checkpoint is."""

    def take_undecodable(self) -> list[Undecodable]:
        """What could not be decoded since the last call, oldest first."""

    def backlog(self) -> int:
        """Records known to be waiting (in the log and in our queue) that ``get`` has not returned yet."""

    def backlog_age_s(self) -> float:
        """How long ago the carrier was asked for that count: what was put since may be missing in it."""

    def reject(self, received: Received, reason: str, detail: str) -> None:
        """Keep a record that validation refused in the dead-letter place, with its reason."""

    def close(self, timeout_s: float = 5.0, for_good: bool = True) -> None:
        """``for_good``: nobody will read on, so who writes may end; else it waits for the next reader."""


class WithoutLog:
    """What a source says that keeps no log: there is nothing to go back in, and nobody to show progress to."""

    log_id = ""

    def position(self) -> Position:
        return {}

    def seek(self, position: Position, log_id: str = "") -> None: ...

    def commit(self, position: Position) -> None: ...

    def backlog_age_s(self) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """All sizes of a carrier, derived from two numbers.

    ``record_bytes``: the largest encoded record; client, topic and broker limits follow from it.
    ``queue_bytes``: bytes a sink may hold unacknowledged, and bytes a source may hold waiting for ``get``.
    """

    record_bytes: int = 8 << 20
    queue_bytes: int = 64 << 20
