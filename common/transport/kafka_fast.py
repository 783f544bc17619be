"""A shorter way from the socket to the records, for the reader.

The client library (3.0) receives in pieces of 4 KiB and copies every byte eight times before a record is handed over,
which costs more than everything else in reading. These two subclasses receive whole frames into place and hand out
records as views; connections, metadata, offsets and login stay the library's. They lean on its insides, which is why
pyproject.toml holds it below the next minor version and tests/common/test_kafka.py reads through them.

A record's value is a view of the answer it came in, or of its decompressed batch: whoever keeps one record for long
keeps up to kafka_reader.FETCH_BYTES alive.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Iterator
from types import MethodType
from typing import Any

import numpy as np
from crc32c import crc32c
from kafka import KafkaConsumer, errors
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.consumer import FetchResponse
from kafka.record.util import decode_varint
from lz4.frame import LZ4FrameDecompressor

# The batch header of message format 2: base offset, length, leader epoch, magic, crc | attributes, last offset delta,
# first and max timestamp, producer id and epoch, base sequence, records. Source: Kafka documentation, "Record Batch".
BATCH = struct.Struct(">qiibIhiqqqhii")
FETCH_VERSION = 12  # what the library asks a broker of 2.7 or newer for; older ones are read a little slower
MORE_WITHIN_MS = 5
LENGTH_END, CRC_END = 12, 21
CODEC, CONTROL = 0x07, 0x20
NONE, LZ4 = 0, 3


class DamagedBatch(errors.CorruptRecordError):
    """A batch that cannot be read. ``partition``, and ``next_offset``, where the batch after it begins."""

    def __init__(self, partition: int, base_offset: int, next_offset: int, problem: str) -> None:
        super().__init__(f"batch at offset {base_offset} of partition {partition}: {problem}")
        self.partition, self.base_offset, self.next_offset = partition, base_offset, next_offset


# --- from the socket to a frame ------------------------------------------------------------------------------------


class _Frame:
    """A received frame: what the library asks of its own buffer, without zeroing it first and copying it last."""

    def __init__(self, nbytes: int) -> None:
        self.view = memoryview(np.empty(nbytes, np.uint8))
        self._at = 0

    def __len__(self) -> int:
        return len(self.view)

    def read(self, nbytes: int | None = None) -> memoryview | bytes:
        start = self._at
        if nbytes is None:
            self._at = len(self.view)
            return self.view[start:]
        self._at = min(start + nbytes, len(self.view))
        return bytes(self.view[start : self._at])

    def seek(self, at: int) -> None:
        self._at = at

    def tell(self) -> int:
        return self._at


class _FrameTransport(KafkaTCPTransport):
    """Receives frames (a 4-byte length, then as many bytes) whole, each into its own buffer."""

    async def _read_from_sock(self) -> None:
        body: _Frame | None = None
        head, filled = memoryview(bytearray(4)), 0
        self._protocol.parser.receive_bytes = MethodType(_receive_frame, self._protocol.parser)
        while self._read and not self._closed:
            await self._net.wait_read(self._sock)
            try:
                while True:
                    target = head if body is None else body.view
                    got = _receive(self._sock, target[filled:], waits=body is not None)
                    if got == 0:
                        return self.abort(error=errors.KafkaConnectionError("socket disconnected"))
                    filled += got
                    if filled == len(target):
                        body = self._complete(head, body)
                        filled = 0
            except (BlockingIOError, InterruptedError):
                pass
            except errors.KafkaProtocolError as error:
                return self.abort(error=error)
            except OSError as error:
                return self.abort(error=errors.KafkaConnectionError(error))
            self.last_read = time.monotonic()

    def _complete(self, head: memoryview, body: _Frame | None) -> _Frame | None:
        """A finished length makes room for its frame; a finished frame goes to the protocol."""
        if body is None:
            nbytes = int.from_bytes(head, "big", signed=True)
            self._protocol.parser._validate_frame_size(nbytes)
            return _Frame(nbytes)
        self._protocol.data_received(body)
        return None


def _receive(sock: Any, target: memoryview, waits: bool) -> int:
    """As ``recv_into``; inside a frame it waits a moment for more, which is cheaper than a turn of the event loop."""
    try:
        return int(sock.recv_into(target))
    except BlockingIOError:
        if not waits:
            raise
    more = select.poll()
    more.register(sock, select.POLLIN)
    more.poll(MORE_WITHIN_MS)
    return int(sock.recv_into(target))


def _receive_frame(parser: Any, frame: _Frame) -> list[Any]:
    return [parser._process_response(frame)]


class _Manager(KafkaConnectionManager):
    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        if type(transport) is KafkaTCPTransport:  # TLS keeps the library's way
            transport.__class__ = _FrameTransport
        return transport


def _view_if_large(data: memoryview) -> memoryview | bytes:
    return data if len(data) > 4096 else bytes(data)


def _decode_records_as_views() -> None:
    """The library generates its decoders at run time; in the one of fetch answers, ``bytes(...)`` shall not copy."""
    decoder = FetchResponse._struct.compiled_decode_from(
        FETCH_VERSION, compact=True, tagged=True, data_class=FetchResponse[None]
    )
    decoder.__globals__["bytes"] = _view_if_large


def net_client(**configs: Any) -> KafkaNetClient:
    """For the library's setting ``kafka_client``."""
    _decode_records_as_views()
    net = NetworkSelector(**configs)
    return KafkaNetClient(net=net, manager=_Manager(net, **configs), **configs)


# --- from an answer to its records ---------------------------------------------------------------------------------


def hand_out_views(consumer: KafkaConsumer, cap_bytes: int) -> None:
    """Make ``consumer`` return values as views; a batch that would decompress to more than ``cap_bytes`` is damaged."""

    def partition_records(*args: Any, **options: Any) -> _PartitionRecords:
        return _PartitionRecords(cap_bytes, *args, **options)

    consumer._fetcher.PartitionRecords = partition_records


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
