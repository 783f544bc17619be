"""A shorter way from an answer of the broker to its records, for the reader.

The client library (3.0) copies a batch once and each value twice; here they are views. A batch that cannot be read says
where the next one begins, and one that would decompress to more than a cap is not decompressed.

A record's value is a view of the answer it came in, or of its decompressed batch: whoever keeps one record for long
keeps up to kafka_reader.FETCH_BYTES alive.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from crc32c import crc32c
from kafka import KafkaConsumer, errors
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.record.util import decode_varint
from lz4.frame import LZ4FrameDecompressor

# The batch header of message format 2: base offset, length, leader epoch, magic, crc | attributes, last offset delta,
# first and max timestamp, producer id and epoch, base sequence, records. Source: Kafka documentation, "Record Batch".
BATCH = struct.Struct(">qiibIhiqqqhii")
LENGTH_END, CRC_END = 12, 21
CODEC, CONTROL = 0x07, 0x20
NONE, LZ4 = 0, 3


class DamagedBatch(errors.CorruptRecordError):  # type: ignore[misc]
    """A batch that cannot be read. ``partition``, and ``next_offset``, where the batch after it begins."""

    def __init__(self, partition: int, base_offset: int, next_offset: int, problem: str) -> None:
        super().__init__(f"batch at offset {base_offset} of partition {partition}: {problem}")
        self.partition, self.base_offset, self.next_offset = partition, base_offset, next_offset


def hand_out_views(consumer: KafkaConsumer, cap_bytes: int) -> None:
    """Make ``consumer`` return values as views; a batch that would decompress to more than ``cap_bytes`` is damaged."""

    def partition_records(*args: Any, **options: Any) -> _PartitionRecords:
        return _PartitionRecords(cap_bytes, *args, **options)

    consumer._fetcher.PartitionRecords = partition_records


def fetch_ahead(consumer: KafkaConsumer) -> None:
    """Make ``consumer`` ask for the next answer before it hands out the records of the last.

    The library does so only for records it had already; those it waited for are decoded first, while the broker waits.
    """
    fetcher = consumer._fetcher
    fetch_records = fetcher.fetch_records

    def fetch(max_records: int, update_offsets: bool = True, timeout_ms: float | None = None) -> tuple[Any, bool]:
        records, idle = fetch_records(max_records, update_offsets=update_offsets, timeout_ms=timeout_ms)
        if not records and idle:
            # An answer that came after it looked and before it asked again is no longer waited for, but is there.
            records, _ = fetcher.fetched_records(max_records, update_offsets=update_offsets)
        if records:
            fetcher.send_fetches()
        return records, idle and not records

    fetcher.fetch_records = fetch


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    def __init__(self, cap_bytes: int, *args: Any, **options: Any) -> None:
        self._cap_bytes = cap_bytes
        super().__init__(*args, **options)

    def _unpack_records(self, tp: Any, records: Any, *_: Any) -> Iterator[Any]:
        answer = memoryview(records._buffer)
        at = 0
        while at + BATCH.size <= len(answer):
            header = BATCH.unpack_from(answer, at)
            end = at + LENGTH_END + header[1]
            if end > len(answer):
                break  # the answer's size limit cut the last batch
            next_offset = header[0] + header[6] + 1
            self.leader_epoch = header[2]
            if not header[5] & CONTROL:
                try:
                    yield from self._records(tp, header, self._body(header, answer[at:end]))
                except (IndexError, ValueError, RuntimeError) as error:
                    raise DamagedBatch(tp.partition, header[0], next_offset, str(error)) from error
            self.next_fetch_offset = next_offset
            at = end
        self.drain()

    def _body(self, header: tuple[int, ...], batch: memoryview) -> memoryview:
        if header[3] != 2:
            raise ValueError(f"message format {header[3]} instead of 2")
        if crc32c(batch[CRC_END:]) != header[4]:
            raise ValueError("its crc32c does not match its bytes")
        body, codec = batch[BATCH.size :], header[5] & CODEC
        if codec == NONE:
            return body
        if codec != LZ4:
            raise ValueError(f"compression codec {codec}; only lz4 or none may travel")
        decompressor = LZ4FrameDecompressor()
        data = decompressor.decompress(body, max_length=self._cap_bytes)
        if not decompressor.eof:
            raise ValueError(f"its lz4 frame is cut, or holds more than {self._cap_bytes} bytes")
        return memoryview(data)

    def _records(self, tp: Any, header: tuple[int, ...], body: memoryview) -> Iterator[Any]:
        at = 0
        for _ in range(header[12]):
            length, at = decode_varint(body, at)
            end = at + length
            if not at < end <= len(body):
                raise ValueError(f"a record of {length} bytes does not fit")
            _, at = decode_varint(body, at + 1)  # attributes and timestamp are of no use here
            delta, at = decode_varint(body, at)
            key, at = _field(body, at, end)
            value, at = _field(body, at, end)
            offset = header[0] + delta
            at = end
            self.records_read += 1
            self.bytes_read += length
            self.next_fetch_offset = offset + 1
            yield ConsumerRecord(
                tp.topic, tp.partition, header[2], offset, -1, 0, key, value, [], None, len(key), len(value), -1
            )


def _field(body: memoryview, at: int, end: int) -> tuple[memoryview, int]:
    size, at = decode_varint(body, at)
    if at + max(0, size) > end:
        raise ValueError(f"a field of {size} bytes does not fit")
    return body[at : at + max(0, size)], at + max(0, size)
