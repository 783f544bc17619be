"""What the Kafka carrier asks of a client library, and what it hears instead of that library's errors.

    kafka_python.py       kafka-python, the default; also makes and checks the topics, whatever the client
    kafka_confluent.py    confluent-kafka, by ``?client=confluent`` and the extra of that name

Everything else of the carrier is written against this file.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from importlib import import_module
from threading import Thread
from types import ModuleType
from typing import Any, Protocol, TypeVar

from headrace.common.transport.base import Limits, Position
from headrace.common.transport.kafka_address import OVERHEAD_BYTES, Address, message_bytes

#: What one answer to a fetch may hold, unless one record is larger: the memory that a reader has beside its queue.
FETCH_BYTES = 16 << 20
BATCH_BYTES = 1 << 20
#: How long a broker may take to answer a question of the reader, and anything else.
ASK_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_MS = 15_000

Headers = list[tuple[str, bytes]]
T = TypeVar("T")


class Unreachable(Exception):
    """A broker, or the leader of a partition, does not answer now. To be tried again."""


class OutOfRange(Exception):
    """The log does not hold an offset that was asked for."""


class Damaged(Exception):
    """The bytes of a batch changed since they were written. Reading on from the same offsets meets it again."""


class GroupRefused(Exception):
    """The login has no right to the group: progress is not shown, and all else goes on."""


class Undelivered(Exception):
    """A record was not delivered. ``kind``: too_large, timestamp, forbidden, or the library's name for it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


#: Hears what became of a record: None when it is acknowledged.
Done = Callable[[Undelivered | None], None]


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log; ``value`` and ``key`` are empty where there was none."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Headers


class Producer(Protocol):
    """``send`` calls ``done`` once for each record it took, from any thread."""

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers, done: Done) -> None:
        """Raises :class:`Undelivered` when the library does not take the record."""

    def close(self, timeout_s: float) -> None:
        """Release everything; what is not acknowledged is given up."""


class Consumer(Protocol):
    """Reads partitions from offsets of ours; for one thread. All but ``close`` may raise :class:`Unreachable`, and
    :class:`UsageError` where the login may not read the topic (any more)."""

    def assign(self, position: Position) -> None:
        """Read these partitions from these offsets, and no others."""

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """Records, per partition in order. Raises :class:`OutOfRange` or :class:`Damaged`."""

    def begins(self) -> dict[int, int]:
        """partition -> the oldest offset in the log, for all partitions of the topic."""

    def ends(self) -> dict[int, int]:
        """partition -> the offset that the next record written will have."""

    def commit(self, position: Position) -> None:
        """Show progress under the group's name, without joining it. May raise :class:`GroupRefused`."""

    def close(self, timeout_s: float) -> None: ...


def open_producer(address: Address, limits: Limits, letters: bool = False) -> Producer:
    """``letters``: records that stand for themselves; one that fails costs no other, and one may arrive twice."""
    made: Producer = _library(address).Producer(address, limits, letters)
    return made


def open_consumer(address: Address, limits: Limits, group: str) -> Consumer:
    made: Consumer = _library(address).Consumer(address, limits, group)
    return made


def _library(address: Address) -> ModuleType:
    return import_module("headrace.common.transport." + address.client)


def producer_settings(address: Address, limits: Limits, letters: bool) -> dict[str, Any]:
    """What a producer is told whatever the library, under kafka-python's names."""
    patience_ms = address.patience_s * 1000
    return {
        "acks": "all",
        "enable_idempotence": not letters,
        "max_request_size": message_bytes(limits) + OVERHEAD_BYTES,
        "batch_size": 1 if letters else min(BATCH_BYTES, message_bytes(limits)),
        "linger_ms": 0,  # who puts a record waits for it to be there before it puts another
        "delivery_timeout_ms": patience_ms,
        "request_timeout_ms": min(REQUEST_TIMEOUT_MS, patience_ms),
        "allow_auto_create_topics": False,
    }


def consumer_settings(limits: Limits, group: str | None) -> dict[str, Any]:
    fetch_bytes = max(FETCH_BYTES, 2 * message_bytes(limits))
    return {
        "group_id": group,
        "enable_auto_commit": False,
        "fetch_max_bytes": fetch_bytes,
        "max_partition_fetch_bytes": fetch_bytes,
        "allow_auto_create_topics": False,
    }


def within(timeout_s: float, ask: Callable[[], T], what: str) -> T:
    """What ``ask`` returns, for a call to which its library gives no deadline. Raises what it raises, and
    :class:`Unreachable` past ``timeout_s``; the call then goes on in the background, maybe for ever."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, name="kafka-ask", daemon=True).start()
    if not wait((answer,), timeout_s).done:
        raise Unreachable(f"no answer within {timeout_s:.0f} s to {what}")
    return answer.result()


def close_within(close: Callable[[], object], timeout_s: float) -> None:
    """Call ``close`` and wait for it no longer than ``timeout_s``; past that it ends by itself in the background."""
    thread = Thread(target=close, name="kafka-close", daemon=True)
    thread.start()
    thread.join(timeout_s)
