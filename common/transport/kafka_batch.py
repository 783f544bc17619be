"""A shorter way from a record to a produce request, for the writer.

The client library (3.0) copies a record into its own buffer, that into the batch's, and twice more to compress it. This
builder keeps the parts and joins them once, and asks a sample whether compressing is worth it: random bytes (and floats
often look random) would be compressed, found larger, and sent as they were. What is sent is the same format.
"""

from __future__ import annotations

import time
from typing import Any

import lz4.frame
from crc32c import crc32c
from kafka.producer import record_accumulator
from kafka.record.default_records import DefaultRecordBatchBuilder, DefaultRecordMetadata
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint

SAMPLES, SAMPLE_BYTES = 8, 4096
WORTH_IT = 0.95  # compressed size of the samples, relative, below which the batch is compressed


class BatchBuilder(DefaultRecordBatchBuilder):  # type: ignore[misc]
    """Format 2 batches from parts that are joined once. ``build`` may be called once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._first_timestamp: int | None = None
        self._max_timestamp: int | None = None
        self._parts: list[bytes] = []
        self._values: list[bytes] = []
        self._size: int = self.HEADER_STRUCT.size

    def append(
        self, offset: int, timestamp: int | None, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]
    ) -> DefaultRecordMetadata | None:
        now = int(time.time() * 1000) if timestamp is None else timestamp
        first = now if self._first_timestamp is None else self._first_timestamp
        head = bytearray(1)  # attributes: none
        encode_varint(now - first, head.append)
        encode_varint(offset, head.append)
        _write(head, key)
        encode_varint(len(value), head.append)
        tail = bytearray()
        encode_varint(len(headers), tail.append)
        for name, content in headers:
            _write(tail, name.encode())
            _write(tail, content)
        length = bytearray()
        encode_varint(len(head) + len(value) + len(tail), length.append)
        size = len(length) + len(head) + len(value) + len(tail)
        if self._parts and self._size + size > self._batch_size:
            return None
        self._parts += [bytes(length + head), value, bytes(tail)]
        self._values.append(value)
        self._size += size
        self._first_timestamp = first
        self._max_timestamp = max(now, self._max_timestamp or now)
        self._last_offset = offset
        self._num_records += 1
        return DefaultRecordMetadata(offset, size, now)

    def size(self) -> int:
        return self._size

    def build(self) -> bytes:
        parts, compressed = self._parts, False
        if self._compression_type == self.CODEC_LZ4 and self._worth_compressing():
            # Independent blocks: Kafka's own reader knows no others.
            packed = lz4.frame.compress(b"".join(parts), block_linked=False)
            compressed = len(packed) < self._size - self.HEADER_STRUCT.size
            parts = [packed] if compressed else parts
        header = self._header(sum(map(len, parts)), compressed)
        crc = crc32c(header[self.ATTRIBUTES_OFFSET :])
        for part in parts:
            crc = crc32c(part, crc)
        header[self.CRC_OFFSET : self.ATTRIBUTES_OFFSET] = crc.to_bytes(4, "big")
        return b"".join([header, *parts])

    def _worth_compressing(self) -> bool:
        samples = b"".join(
            value[i : i + SAMPLE_BYTES]
            for value in self._values
            for i in range(0, len(value), len(value) // SAMPLES + 1)
        )
        return len(lz4.frame.compress(samples)) < WORTH_IT * len(samples)

    def _header(self, body_bytes: int, compressed: bool) -> bytearray:
        header = bytearray(self.HEADER_STRUCT.size)
        self.HEADER_STRUCT.pack_into(
            header, 0,
            0, len(header) + body_bytes - self.AFTER_LEN_OFFSET,
            0, self._magic, 0, self._get_attributes(compressed), self._last_offset,
            self._first_timestamp or 0, self._max_timestamp or 0,
            self._producer_id, self._producer_epoch, self._base_sequence, self._num_records,
        )  # fmt: skip
        return header


def _write(out: bytearray, field: bytes | None) -> None:
    encode_varint(-1 if field is None else len(field), out.append)
    out += field or b""


class _RecordsBuilder(MemoryRecordsBuilder):  # type: ignore[misc]
    def __init__(self, magic: int, compression_type: int, batch_size: int) -> None:
        super().__init__(magic, compression_type, batch_size)
        if magic == 2 and compression_type in (BatchBuilder.CODEC_NONE, BatchBuilder.CODEC_LZ4):
            self._builder = BatchBuilder(magic, compression_type, False, -1, -1, -1, batch_size)


def install() -> None:
    """Let producers made in this process build their batches so; the library has no setting for it."""
    record_accumulator.MemoryRecordsBuilder = _RecordsBuilder
