"""Reading the log from offsets of our own: poll, decode, and what to do when an offset or a batch is bad.

Used by one thread (kafka_source.py), but for ``ends``.

Memory beside the caller's queue: two fetch answers per broker (``FETCH_BYTES`` each, or one record where it is larger):
one being decoded, one on its way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition, errors
from kafka.structs import OffsetAndMetadata

from headrace.common.codec import decode
from headrace.common.errors import Rejected, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits, Position, Received
from headrace.common.transport.kafka_client import Address, connect, message_bytes
from headrace.common.transport.kafka_dead import DeadLetters
from headrace.common.transport.kafka_records import DamagedBatch, fetch_ahead, hand_out_views

logger = logging.getLogger(__name__)

FETCH_BYTES = 48 << 20
ASK_TIMEOUT_S = 5.0


class Reader:
    """``ends``: partition -> end of the log as last seen (replaced as a whole, so any thread may read it)."""

    def __init__(
        self,
        address: Address,
        limits: Limits,
        metrics: Metrics,
        group: str,
        partitions: Sequence[int],
        dead: DeadLetters,
    ) -> None:
        self._address, self._limits, self._metrics, self._dead = address, limits, metrics, dead
        self._tps = {p: TopicPartition(address.topic, p) for p in partitions}
        self._next: dict[int, int] = {}  # partition -> offset of the next record to read
        self._record_bytes = 0  # of the largest record seen
        self._ends_at_s = 0.0
        self._away_since_s: float | None = None
        self.ends: Mapping[int, int] = {}
        fetch_bytes = max(FETCH_BYTES, 2 * message_bytes(limits))
        self._consumer = connect(
            KafkaConsumer,
            address,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=fetch_bytes,
            fetch_max_bytes=fetch_bytes,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        hand_out_views(self._consumer, cap_bytes=4 * message_bytes(limits))
        fetch_ahead(self._consumer)
        self._consumer.assign(list(self._tps.values()))

    def seek(self, position: Position) -> Position | None:
        """Go on from ``position``; partitions it does not name start at their oldest record. Returns where each starts,
        or None when the broker is away.

        Offsets below the start of the log jump to it, counted as a gap. Raises :class:`UsageError` for an offset
        beyond the end: that position belongs to another log.
        """
        strange = sorted(set(position) - set(self._tps))
        if strange:
            raise UsageError(f"{self._address.where}: position names partitions {strange}, not read by this rank")
        try:
            begins, ends = self._ask("beginning_offsets"), self._ask("end_offsets")
        except errors.RetriableError as error:
            self._away(error)
            return None
        for p in self._tps:
            offset = position.get(p, begins[p])
            if offset > ends[p]:
                raise UsageError(
                    f"{self._address.where}: position {offset} of partition {p} is beyond the end of the log "
                    f"({ends[p]}); is this the topic of that checkpoint?"
                )
            self._go_to(p, max(offset, begins[p]), gap=max(0, begins[p] - offset))
        self._saw_ends(ends)
        return dict(self._next)

    def poll(self, timeout_s: float, room_bytes: int) -> Iterator[Received]:
        """Decoded records, about ``room_bytes`` of them at most; none when there are none within ``timeout_s``."""
        fit = room_bytes // self._record_bytes if self._record_bytes else 1
        try:
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=min(500, max(1, fit)))
        except DamagedBatch as error:
            self._skip(error)
            return
        except (errors.RetriableError, errors.OffsetOutOfRangeError) as error:
            self._recover(error)
            return
        if polled:
            self._saw_ends({**self.ends, **{tp.partition: self._consumer.highwater(tp) for tp in polled}})
            self._away_since_s = None
        for tp, records in polled.items():
            for record in records:
                self._next[tp.partition] = record.offset + 1
                self._record_bytes = max(self._record_bytes, len(record.value))
                received = self._decoded(record)
                if received is not None:
                    yield received

    def refresh_ends(self, every_s: float) -> None:
        """Look where the log ends, at most once in ``every_s``: for the lag, and to see that the broker is there.

        The client hides a broker that is away from ``poll``; raises :class:`TransportError` when it stays away longer
        than the address's ``patience_s``.
        """
        if time.monotonic() - self._ends_at_s < every_s:
            return  # records that come in tell it as well
        try:
            self._saw_ends(self._ask("end_offsets"))
            self._away_since_s = None
        except errors.RetriableError as error:
            self._away(error)

    def unread(self) -> int:
        """Records between what was read, refused ones included, and the end of the log as last seen."""
        return sum(max(0, end - self._next.get(p, end)) for p, end in self.ends.items())

    def commit(self, position: Position) -> None:
        offsets = {self._tps[p]: OffsetAndMetadata(o, "", -1) for p, o in position.items() if p in self._tps}
        try:
            self._consumer.commit(offsets, timeout_ms=int(ASK_TIMEOUT_S * 1000))
        except errors.KafkaError as error:
            self._metrics.inc("transport_errors_total", kind="commit")
            logger.warning("%s: progress was not committed: %s", self._address.where, error)

    def close(self, timeout_s: float) -> None:
        self._consumer.close(autocommit=False, timeout_ms=int(timeout_s * 1000))

    def _decoded(self, record: Any) -> Received | None:
        data = record.value
        self._metrics.inc("transport_records_total", direction="got")
        self._metrics.inc("transport_bytes_total", len(data), direction="got")
        try:
            trajectory = decode(data, self._limits.record_bytes)
        except Rejected as rejected:
            self._metrics.inc("learner_rejected_total", reason=rejected.reason)
            self._dead.bury(
                bytes(data), bytes(record.key), record.partition, record.offset, rejected.reason, str(rejected)
            )
            return None
        return Received(trajectory, record.partition, record.offset + 1, len(data))

    def _ask(self, question: str) -> dict[int, int]:
        answer = getattr(self._consumer, question)(list(self._tps.values()), timeout_ms=int(ASK_TIMEOUT_S * 1000))
        return {tp.partition: offset for tp, offset in answer.items()}

    def _saw_ends(self, ends: Mapping[int, int]) -> None:
        self._ends_at_s = time.monotonic()
        self.ends = ends
        for p, end in ends.items():
            self._metrics.set("transport_lag_records", max(0, end - self._next.get(p, end)), partition=str(p))

    def _away(self, error: Exception) -> None:
        now = time.monotonic()
        self._ends_at_s = now
        self._metrics.inc("transport_errors_total", kind=type(error).__name__)
        self._away_since_s = since = self._away_since_s or now
        if now - since > self._address.patience_s:
            raise TransportError(f"{self._address.where}: no broker for {now - since:.0f} s: {error}") from error

    def _recover(self, error: Exception) -> None:
        try:
            if not isinstance(error, errors.OffsetOutOfRangeError):
                raise error
            # Offsets are not in the log any more: retention was faster than we.
            for p, begin in self._ask("beginning_offsets").items():
                if self._next[p] < begin:
                    self._go_to(p, begin, gap=begin - self._next[p])
        except errors.RetriableError as away:
            self._away(away)

    def _go_to(self, partition: int, offset: int, gap: int) -> None:
        if gap:
            self._metrics.inc("transport_gap_records_total", gap)
            logger.warning(
                "%s: %d records of partition %d were removed by retention before they were read; going on at %d",
                self._address.where, gap, partition, offset,
            )  # fmt: skip
        self._next[partition] = offset
        self._consumer.seek(self._tps[partition], offset)

    def _skip(self, batch: DamagedBatch) -> None:
        """Step over a batch whose bytes changed in the log: going back to it would read the same bytes."""
        lost = batch.next_offset - self._next[batch.partition]
        self._metrics.inc("learner_rejected_total", lost, reason="crc")
        logger.warning("%s: stepping over %d records: %s", self._address.where, lost, batch)
        self._go_to(batch.partition, batch.next_offset, gap=0)
