"""kafka://, the reading half: the topic is a durable log, and this is a learner's view of it.

    put -> codec -> BoundedProducer -> topic                              kafka_sink.py
    topic -> poll thread -> codec -> queue, bounded in bytes -> get       kafka_reader.py, received_queue.py, this file
                     └> what cannot be decoded -> topic.dead              kafka_dead.py

kafka_address.py knows addresses, login and sizes, kafka_topics.py makes and checks the topics; kafka_client.py says
what is asked of a client library. Nothing outside these files sees an error of one.

Progress lives in the learner's checkpoint: ``seek`` starts there. What is committed to Kafka only shows the lag.
"""

from __future__ import annotations

import contextlib
import time
from threading import Lock, Thread

from headrace.common.codec import encode
from headrace.common.errors import LogLost, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits, Position, Received, Undecodable
from headrace.common.transport.kafka_address import parse
from headrace.common.transport.kafka_dead import DeadLetters
from headrace.common.transport.kafka_reader import Reader
from headrace.common.transport.kafka_topics import prepare
from headrace.common.transport.received_queue import ReceivedQueue

SEEK_TIMEOUT_S = 60.0
POLL_S = 0.2
ENDS_EVERY_S = 1.0


class KafkaSource:
    """See :class:`headrace.common.transport.base.Source`. Makes the topic when it is missing.

    Rank r of W reads the partitions p with p mod W = r. Memory: ``limits.queue_bytes`` decoded, plus what the client
    has fetched ahead (kafka_reader.py). Raises :class:`UsageError` when no broker answers, the topic cannot carry
    ``limits``, or there is no partition for this rank.
    """

    def __init__(
        self, url: str, limits: Limits, metrics: Metrics, group: str, run: str = "", rank: int = 0, world: int = 1
    ) -> None:
        self._address = address = parse(url)
        self._limits = limits
        topic = prepare(address, limits, create=True)
        if rank >= topic.partitions:
            raise UsageError(
                f"{address.where}: nothing to read for rank {rank} of {world}, the topic has {topic.partitions} "
                f"partitions; it needs at least {world}"
            )
        self.log_id = topic.id
        self._dead = DeadLetters(address, limits, metrics, topic.letter_bytes)
        self._reader = Reader(address, limits, metrics, group, lambda p: p % world == rank, self._dead, run)
        self._queue = ReceivedQueue(address.where, limits.queue_bytes, metrics)
        self._lock = Lock()  # guards the rest
        self._commits: Position | None = None
        self._paused = False  # for a seek, and for good when closing
        self._thread: Thread | None = None
        try:
            self._position = self._begin(None)
        except BaseException:
            self._reader.close(1.0)
            raise

    # --- the learner's side ---------------------------------------------------------------------------------------

    def get(self, timeout_s: float) -> Received | None:
        self._ensure_started()
        return self._queue.get(timeout_s)

    def seek(self, position: Position, log_id: str = "") -> None:
        if log_id and self.log_id and log_id != self.log_id:
            raise LogLost(
                f"{self._address.where}: the topic was made anew since that position was taken (it is {self.log_id}, "
                f"the position's was {log_id})"
            )
        self._queue.raise_if_over()
        try:
            self._pause(SEEK_TIMEOUT_S)
            self._queue.clear()  # what was read will be read again, or is not wanted
            self._position = self._begin(position)
        except BaseException as error:
            self._queue.fail(error)
            raise
        with self._lock:
            self._queue.raise_if_over()
            self._thread, self._paused = None, False
        self._ensure_started()

    def position(self) -> Position:
        return self._position

    def commit(self, position: Position) -> None:
        """Returns at once; the thread commits, and a failure is only counted: the checkpoint is the authority."""
        with self._lock:
            self._commits = dict(position)

    def take_undecodable(self) -> list[Undecodable]:
        return self._reader.undecodable.take()

    def backlog(self) -> int:
        self._ensure_started()
        return self._reader.unread() + self._queue.waiting()

    def backlog_age_s(self) -> float:
        return time.monotonic() - self._reader.ends_seen_s

    def reject(self, received: Received, reason: str, detail: str) -> None:
        record = encode(received.trajectory, self._limits.record_bytes, self._address.compression)
        self._dead.bury(record, b"", received.partition, received.next_offset - 1, reason, detail)

    def close(self, timeout_s: float = 5.0, for_good: bool = True) -> None:
        deadline = time.monotonic() + timeout_s
        self._queue.close()
        with contextlib.suppress(TransportError):
            self._pause(timeout_s * 0.7)
        self._reader.close(max(0.1, (deadline - time.monotonic()) / 2))
        self._dead.close(max(0.1, deadline - time.monotonic()))

    def _pause(self, timeout_s: float) -> None:
        """End the thread."""
        with self._lock:
            self._paused = True
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                raise TransportError(f"{self._address.where}: reading did not end within {timeout_s:.0f} s")

    def _begin(self, position: Position | None) -> Position:
        """Have the reader go on from ``position``, or from the end of the log; returns where that is."""
        until = time.monotonic() + SEEK_TIMEOUT_S
        while (begin := self._reader.seek(position)) is None:
            self._queue.raise_if_over()
            if time.monotonic() > until:
                raise TransportError(f"{self._address.where}: no answer within {SEEK_TIMEOUT_S:.0f} s to a seek")
        return begin

    def _ensure_started(self) -> None:
        with self._lock:  # the learner and its intake both ask first
            if self._thread is None and not self._paused:
                self._thread = Thread(target=self._run, name="kafka-source", daemon=True)
                self._thread.start()

    # --- the thread's side ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._paused:
                self._tend()
                for received in self._reader.poll(POLL_S, self._queue.room_bytes):
                    while not self._queue.put(received, POLL_S) and not self._paused:
                        self._tend()
                    if self._paused:
                        break
            self._commit_wanted()
        except BaseException as error:  # whatever it is, the learner shall see it at get()
            self._queue.fail(error)

    def _tend(self) -> None:
        """What must not wait for records, or for room in the queue."""
        self._commit_wanted()
        self._reader.refresh_ends(every_s=ENDS_EVERY_S)

    def _commit_wanted(self) -> None:
        with self._lock:
            wanted, self._commits = self._commits, None
        if wanted:
            self._reader.commit(wanted)
