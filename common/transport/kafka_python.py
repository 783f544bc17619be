"""kafka-python behind the contract of kafka_client.py, used as its documentation says."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from functools import partial

from kafka import KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.structs import OffsetAndMetadata

from headrace.common.errors import TransportError, UsageError
from headrace.common.transport import kafka_client, kafka_rights
from headrace.common.transport.base import Limits, Position
from headrace.common.transport.kafka_address import Address
from headrace.common.transport.kafka_contact import AWAY, connect, line

METADATA_MAX_AGE_MS = 30_000  # partitions that are added to the topic are seen so soon
NOWHERE = 2**62  # an offset that no log reaches

_OUT_OF_RANGE = (errors.OffsetOutOfRangeError, errors.LogTruncationError)
#: What reading a batch raises whose bytes changed, wherever they did.
_DAMAGED = (errors.CorruptRecordError, errors.UnsupportedCodecError, struct.error, ValueError, IndexError)
_KINDS = {
    "MessageSizeTooLargeError": "too_large",
    "InvalidTimestampError": "timestamp",
    "TopicAuthorizationFailedError": "forbidden",
}


class Producer:
    def __init__(self, address: Address, limits: Limits, letters: bool) -> None:
        self._producer = connect(
            KafkaProducer,
            address,
            **kafka_client.producer_settings(address, limits, letters),
            max_block_ms=min(address.patience_s * 1000, 5_000 if letters else 60_000),
            metrics_enabled=False,
        )

    def send(
        self, topic: str, key: bytes, value: bytes, headers: kafka_client.Headers, done: kafka_client.Done
    ) -> None:
        try:
            future = self._producer.send(topic, value=value, key=key, headers=headers)
        except errors.KafkaError as error:
            raise _undelivered(error) from error
        future.add_callback(lambda _: done(None))
        future.add_errback(lambda error: done(_undelivered(error)))

    def close(self, timeout_s: float) -> None:
        # The library flushes first and cannot be told to give up; what is left ends at its delivery timeout.
        kafka_client.close_within(self._producer.close, timeout_s)


class Consumer:
    def __init__(self, address: Address, limits: Limits, group: str) -> None:
        self._address, self._limits = address, limits
        self._damaged = self._group_refused = False
        self._position: dict[int, int] = {}
        self._consumer = self._open(group)

    def assign(self, position: Position) -> None:
        self._position = dict(position)
        with self._asking():
            self._consumer.assign([self._tp(p) for p in position])
            if self._damaged:
                # The library goes on with the half-read answer of an offset that it is at: it must have been elsewhere.
                for p in position:
                    self._consumer.seek(self._tp(p), NOWHERE)
                with contextlib.suppress(errors.KafkaError):
                    self._consumer.poll(timeout_ms=0)
                self._damaged = False
            for p, offset in position.items():
                self._consumer.seek(self._tp(p), offset)

    def poll(self, timeout_s: float, max_records: int) -> list[kafka_client.Record]:
        try:
            with self._asking():
                polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except kafka_client.GroupRefused:
            self._leave_group()
            return []
        except _DAMAGED as error:
            self._damaged = True
            raise kafka_client.Damaged(line(error)) from error
        self._position |= {tp.partition: records[-1].offset + 1 for tp, records in polled.items() if records}
        return [
            kafka_client.Record(tp.partition, r.offset, r.key or b"", r.value or b"", r.headers)
            for tp, records in polled.items()
            for r in records
        ]

    def begins(self) -> dict[int, int]:
        return self._offsets(self._consumer.beginning_offsets)

    def ends(self) -> dict[int, int]:
        return self._offsets(self._consumer.end_offsets)

    def commit(self, position: Position) -> None:
        if self._group_refused:
            raise kafka_client.GroupRefused
        with self._asking():
            offsets = {self._tp(p): OffsetAndMetadata(offset, "", -1) for p, offset in position.items()}
            self._consumer.commit(offsets, timeout_ms=int(kafka_client.ASK_TIMEOUT_S * 1000))

    def close(self, timeout_s: float) -> None:
        kafka_client.close_within(
            lambda: self._consumer.close(autocommit=False, timeout_ms=int(timeout_s * 1000)), timeout_s
        )

    def _open(self, group: str | None) -> KafkaConsumer:
        return connect(
            KafkaConsumer,
            self._address,
            **kafka_client.consumer_settings(self._limits, group),
            auto_offset_reset="none",
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            metrics_enabled=False,
        )

    def _leave_group(self) -> None:
        """The library reads nothing in the name of a group that it may not ask for; without one it does."""
        self._group_refused = True
        self.close(kafka_client.ASK_TIMEOUT_S)
        self._consumer = self._open(None)
        self.assign(self._position)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._address.topic, partition)

    def _offsets(self, offsets: Callable[..., dict[TopicPartition, int]]) -> dict[int, int]:
        with self._asking():
            ask = partial(self._consumer.partitions_for_topic, self._address.topic)
            partitions = kafka_client.within(kafka_client.ASK_TIMEOUT_S, ask, "what partitions the topic has")
            if not partitions:
                raise kafka_client.Unreachable("the broker does not say what partitions the topic has")
            answer = offsets(
                [self._tp(p) for p in sorted(partitions)], timeout_ms=int(kafka_client.ASK_TIMEOUT_S * 1000)
            )
            return {tp.partition: offset for tp, offset in answer.items()}

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGED:
            raise
        except _OUT_OF_RANGE as error:
            raise kafka_client.OutOfRange(line(error)) from error
        except AWAY as error:
            raise kafka_client.Unreachable(line(error)) from error
        except errors.GroupAuthorizationFailedError as error:
            raise kafka_client.GroupRefused from error
        except errors.TopicAuthorizationFailedError as error:
            said = kafka_rights.missing(self._address, kafka_rights.READ, "topic", self._address.topic)
            raise UsageError(said) from error
        except errors.KafkaError as error:
            raise TransportError(f"{self._address.where}: {line(error)}") from error


def _undelivered(error: BaseException) -> kafka_client.Undelivered:
    name = type(error).__name__
    return kafka_client.Undelivered(_KINDS.get(name, name), line(error))
