"""Trajectory records, built by hand: prefix, header, arrays.

The prefix was found by looking at what an honest actor sends, before docs/carriers.md had it: magic "HRTJ", version 2,
header length (u32), payload length (u64), CRC-32C of all but itself. All little-endian.
"""

from __future__ import annotations

import struct

import crc32c
import numpy as np

from headrace.common.wire import trajectory_pb2 as tp

PREFIX = struct.Struct("<4sIIQ")
CRC = struct.Struct("<I")
PREFIX_BYTES = PREFIX.size + CRC.size
ALIGN = 64


def seal(head: bytes, body: bytes) -> bytes:
    """A record of a prefix without its CRC and what follows it."""
    return head + CRC.pack(crc32c.crc32c(body, crc32c.crc32c(head))) + body


def record(header: tp.TrajectoryHeader, payload: bytes) -> bytes:
    """A record with this header and payload, whatever they say."""
    raw = header.SerializeToString()
    padding = -(PREFIX_BYTES + len(raw)) % ALIGN
    return seal(PREFIX.pack(b"HRTJ", 2, len(raw), len(payload)), raw + bytes(padding) + payload)


def parse(data: bytes) -> tuple[tp.TrajectoryHeader, bytes]:
    """Header and payload of an honest record."""
    magic, version, length, payload = PREFIX.unpack_from(data)
    assert (magic, version) == (b"HRTJ", 2), data[:PREFIX_BYTES]
    header = tp.TrajectoryHeader.FromString(data[PREFIX_BYTES : PREFIX_BYTES + length])
    assert record(header, data[len(data) - payload :]) == data, "the frame is not what it was found to be"
    return header, data[len(data) - payload :]


def poison(header: tp.TrajectoryHeader, payload: bytes, name: str, value: float) -> bytes:
    """The payload with one element of the float32 array ``name`` set to ``value``."""
    array = next(a for a in header.arrays if a.name == name)
    assert array.nbytes, f"{name} is empty: nothing would be poisoned"
    changed = bytearray(payload)
    np.frombuffer(changed, np.float32, array.nbytes // 4, array.offset)[:1] = value
    return bytes(changed)


def with_truncation(header: tp.TrajectoryHeader, payload: bytes) -> bytes:
    """Make it a fragment in which one episode was cut off, so that ``final_obs`` has a row; returns the payload."""
    arrays = {a.name: a for a in header.arrays}
    changed = bytearray(payload)
    for name in ("terminated", "truncated"):
        at = arrays[name]
        changed[at.offset : at.offset + at.nbytes] = bytes(at.nbytes)
    changed[arrays["truncated"].offset] = 1
    final, columns = arrays["final_obs"], list(arrays["final_obs"].shape[1:])
    final.shape[:] = [1, *columns]
    final.nbytes = 4 * int(np.prod(columns))
    final.offset = len(changed) + -len(changed) % ALIGN
    return bytes(changed) + bytes(final.offset - len(changed) + final.nbytes)
