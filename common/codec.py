"""Trajectory <-> bytes. One record is one frame:

    prefix                 24 bytes, little-endian: magic "HRTJ" | frame version u16 | reserved u16, 0
                           | header bytes u32 | payload bytes u64 | crc32c u32 of all other bytes of the frame
    header                 protobuf TrajectoryHeader (proto/trajectory.proto), then zeros up to a multiple of 64
    payload                little-endian arrays in C order, each at a multiple of 64, as they are or (from version 2)
                           as an lz4 block (compress.py): then ``packed_bytes`` of its description is not 0

A record's size is that of its unpacked frame, whatever travels: the cap bounds memory.

Version rule. A reader takes exactly the frame versions it knows (so far 1 and 2) and refuses others under ``version``.
A new field in the protobuf header keeps the version: readers ignore fields they do not know. Anything an old reader
must not ignore (another prefix, another layout of the payload, a new meaning of a field) gets the next frame version.
The golden bytes under tests/common/golden/ must decode for ever.

Nothing is parsed, and nothing is allocated, before its size has been checked against a cap. ``decode`` copies no array:
what it returns are read-only views of the bytes it was given, or of the block it unpacked.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from crc32c import crc32c
from google.protobuf.message import DecodeError

from headrace.common.compress import pack, unpack
from headrace.common.errors import Rejected
from headrace.common.types import DTYPES, Array, Episode, Trajectory
from headrace.common.wire import trajectory_pb2 as pb

MAGIC = b"HRTJ"
VERSION = 2
READS = (1, 2)
MAX_HEADER_BYTES = 256 << 10
MAX_ARRAYS = 64
MAX_TEXT_BYTES = 256
MAX_NAME_BYTES = 64
MAX_NDIM = 8
ALIGN = 64

PREFIX = struct.Struct("<4sHHIQ")
CRC = struct.Struct("<I")
PREFIX_BYTES = PREFIX.size + CRC.size

#: Stamps that a header names as :class:`Trajectory` does.
_STAMPS = (
    "run_id", "learner_epoch", "actor_id", "incarnation", "seq", "policy_version", "lease", "task_id", "schema_hash",
)  # fmt: skip
_NUMBER = {name: pb.DType.Value(f"DTYPE_{name.upper()}") for name in DTYPES}
_DTYPE = {number: np.dtype(name).newbyteorder("<") for name, number in _NUMBER.items()}
_ZEROS = bytes(ALIGN)

Buffer = bytes | memoryview


def encode(trajectory: Trajectory, cap_bytes: int, compress: bool = False) -> bytes:
    """The frame of one trajectory. Raises :class:`Rejected` for what ``decode`` would refuse, over the cap included."""
    return b"".join(encode_parts(trajectory, cap_bytes, compress))


def encode_parts(trajectory: Trajectory, cap_bytes: int, compress: bool = False) -> list[Buffer]:
    """The same frame as pieces in order, arrays not copied: for carriers that gather (``sendmsg``, ``writelines``)."""
    if trajectory.nbytes > cap_bytes:
        raise Rejected("size", f"arrays of {trajectory.nbytes} bytes are over the cap of {cap_bytes} bytes a record")
    arrays = {name: _plain(name, array) for name, array in trajectory.arrays.items()}
    stored: list[Buffer] = [array.reshape(-1).view(np.uint8).data for array in arrays.values()]
    if compress:
        stored = [pack(memoryview(raw)) or raw for raw in stored]
    header = _header(trajectory, arrays, stored)
    head = header.SerializeToString()
    if len(head) > MAX_HEADER_BYTES:
        raise Rejected("size", f"header of {len(head)} bytes is over {MAX_HEADER_BYTES}: too many episodes")
    total = _aligned(PREFIX_BYTES + len(head)) + sum(_aligned(array.nbytes) for array in arrays.values())
    if total > cap_bytes:
        raise Rejected("size", f"record of {total} bytes is over the cap of {cap_bytes} bytes")
    parts: list[Buffer] = [head, _ZEROS[: -(PREFIX_BYTES + len(head)) % ALIGN]]
    for piece in stored:
        parts += [piece, _ZEROS[: -len(piece) % ALIGN]]
    prefix = PREFIX.pack(MAGIC, VERSION, 0, len(head), sum(_aligned(len(piece)) for piece in stored))
    crc = crc32c(prefix)
    for part in parts:
        crc = crc32c(part, crc)
    return [prefix + CRC.pack(crc), *parts]


def check_fields(names_and_axes: Mapping[str, int]) -> None:
    """Do arrays of these names and numbers of axes fit into a record? Raises :class:`Rejected` as ``encode`` would."""
    described = [pb.Array(name=name, shape=[1] * axes) for name, axes in names_and_axes.items()]
    _check_header(pb.TrajectoryHeader(t=1, b=1, arrays=described))


def decode(data: Buffer, cap_bytes: int) -> Trajectory:
    """The trajectory in ``data``, its arrays read-only views of ``data`` (which must not change any more).

    Raises :class:`Rejected` with reason size, malformed, version, crc, dtype, shape or empty; never anything else.
    """
    view = memoryview(data)
    version, head_bytes, payload_at = _check_frame(view, cap_bytes)
    try:
        header = pb.TrajectoryHeader.FromString(bytes(view[PREFIX_BYTES : PREFIX_BYTES + head_bytes]))
    except DecodeError as e:
        raise Rejected("malformed", f"the header is no TrajectoryHeader: {e}") from e
    _check_header(header)
    if (unpacked := sum(a.nbytes for a in header.arrays)) > cap_bytes:
        raise Rejected("size", f"arrays of {unpacked} bytes are over the cap of {cap_bytes} bytes a record")
    if version == 1 and any(a.packed_bytes for a in header.arrays):
        raise Rejected("malformed", "an array of a frame of version 1 says that it is packed")
    payload = view[payload_at:]
    arrays = {a.name: _view(a, payload) for a in header.arrays}
    if len(arrays) != len(header.arrays):
        raise Rejected("malformed", "two arrays of one name")
    return Trajectory(
        **{name: getattr(header, name) for name in _STAMPS},
        T=header.t,
        B=header.b,
        arrays=MappingProxyType(arrays),
        episodes=tuple(map(Episode, header.episode_return, header.episode_length)),
    )


def _aligned(nbytes: int) -> int:
    return nbytes + -nbytes % ALIGN


def _plain(name: str, array: Array) -> Array:
    number = _NUMBER.get(array.dtype.name)
    if number is None:
        raise Rejected("dtype", f"array {name!r} is {array.dtype}; may travel: {', '.join(DTYPES)}")
    return np.ascontiguousarray(array, dtype=_DTYPE[number]).reshape(array.shape)


def _header(trajectory: Trajectory, arrays: Mapping[str, Array], stored: Sequence[Buffer]) -> pb.TrajectoryHeader:
    described: list[pb.Array] = []
    offset = 0
    for (name, array), piece in zip(arrays.items(), stored, strict=True):
        packed = len(piece) if len(piece) < array.nbytes else 0
        described.append(
            pb.Array(
                name=name, dtype=_NUMBER[array.dtype.name], shape=array.shape,
                offset=offset, nbytes=array.nbytes, packed_bytes=packed,
            )
        )  # fmt: skip
        offset += _aligned(len(piece))
    try:
        header = pb.TrajectoryHeader(
            **{name: getattr(trajectory, name) for name in _STAMPS},
            t=trajectory.T,
            b=trajectory.B,
            arrays=described,
            episode_return=[e.ret for e in trajectory.episodes],
            episode_length=[e.length for e in trajectory.episodes],
        )
    except (ValueError, TypeError) as e:
        raise Rejected("malformed", f"a stamp does not fit its field: {e}") from e
    _check_header(header)
    return header


def _check_frame(view: memoryview, cap_bytes: int) -> tuple[int, int, int]:
    """Sizes, version and CRC of a frame; returns its version, its header's length, and where its payload starts."""
    if view.nbytes > cap_bytes:
        raise Rejected("size", f"record of {view.nbytes} bytes is over the cap of {cap_bytes} bytes")
    if view.nbytes < PREFIX_BYTES:
        raise Rejected("malformed", f"record of {view.nbytes} bytes is shorter than the prefix of {PREFIX_BYTES}")
    magic, version, reserved, head_bytes, payload_bytes = PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise Rejected("malformed", f"record starts with {magic!r}, not {MAGIC!r}")
    if version not in READS or reserved != 0:
        raise Rejected("version", f"frame version {version}.{reserved}; this reader knows 1.0 and 2.0")
    if head_bytes > MAX_HEADER_BYTES:
        raise Rejected("size", f"header of {head_bytes} bytes is over {MAX_HEADER_BYTES}")
    payload_at = _aligned(PREFIX_BYTES + head_bytes)
    if payload_at + payload_bytes != view.nbytes:
        raise Rejected("malformed", f"record of {view.nbytes} bytes announces {payload_at + payload_bytes}")
    (crc,) = CRC.unpack_from(view, PREFIX.size)
    if crc32c(view[PREFIX_BYTES:], crc32c(view[: PREFIX.size])) != crc:
        raise Rejected("crc", "the record's crc32c does not match its bytes")
    return version, head_bytes, payload_at


def _check_header(header: pb.TrajectoryHeader) -> None:
    """What both sides insist on, before any array is looked at."""
    if header.t == 0 or header.b == 0 or not header.arrays:
        raise Rejected("empty", f"T={header.t}, B={header.b}, {len(header.arrays)} arrays: nothing to train on")
    if len(header.arrays) > MAX_ARRAYS:
        raise Rejected("size", f"{len(header.arrays)} arrays are over {MAX_ARRAYS}")
    for name in ("run_id", "task_id", "schema_hash"):
        if len(getattr(header, name).encode()) > MAX_TEXT_BYTES:
            raise Rejected("size", f"{name} is over {MAX_TEXT_BYTES} bytes")
    if len(header.episode_return) != len(header.episode_length):
        raise Rejected("malformed", "episode_return and episode_length differ in length")
    for array in header.arrays:
        if not 0 < len(array.name.encode()) <= MAX_NAME_BYTES:
            raise Rejected("size", f"array name {array.name[:MAX_NAME_BYTES]!r} is not of 1 to {MAX_NAME_BYTES} bytes")
        if len(array.shape) > MAX_NDIM:
            raise Rejected("shape", f"array {array.name!r} has {len(array.shape)} axes, over {MAX_NDIM}")


def _view(described: pb.Array, payload: memoryview) -> Array:
    """One array as a read-only view of the payload, or of the block unpacked from it. Python's integers do not
    overflow, so neither do the checks."""
    name, start, nbytes = described.name, described.offset, described.nbytes
    stored = described.packed_bytes or nbytes
    dtype = _DTYPE.get(described.dtype)
    if dtype is None:
        raise Rejected("dtype", f"array {name!r} has the unknown dtype number {described.dtype}")
    shape: Sequence[int] = tuple(described.shape)
    if math.prod(shape) * dtype.itemsize != nbytes:
        raise Rejected("shape", f"array {name!r} of shape {shape} and dtype {dtype} is not {nbytes} bytes long")
    if start % ALIGN or start + stored > payload.nbytes:
        raise Rejected("shape", f"array {name!r} ({stored} bytes at {start}) is not inside the payload")
    # An axis of 0 makes any other axis fit; numpy still multiplies the others.
    if math.prod(max(1, n) for n in shape) > np.iinfo(np.int64).max // dtype.itemsize:
        raise Rejected("shape", f"array {name!r} of shape {shape}: axes too large")
    piece: Buffer = payload[start : start + stored]
    if described.packed_bytes:
        piece = unpack(memoryview(piece), nbytes)
    raw = np.frombuffer(piece, np.uint8) if nbytes else np.empty(0, np.uint8)
    if dtype == np.bool_ and nbytes and raw.max() > 1:
        raise Rejected("malformed", f"array {name!r} of bool holds a byte that is neither 0 nor 1")
    array = raw.view(dtype).reshape(shape)
    array.flags.writeable = False
    return array
