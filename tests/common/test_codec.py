"""The codec: what goes in comes out, what is damaged comes out as Rejected, and old bytes stay readable."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.common import codec
from headrace.common.errors import Rejected
from headrace.common.types import DTYPES, Episode, Trajectory
from headrace.common.validation import Expected, validate
from headrace.common.wire import trajectory_pb2 as pb

from .samples import SCHEMA, assert_same, trajectory

CAP = 1 << 20
GOLDEN = Path(__file__).parent / "golden"

arrays = hnp.arrays(
    dtype=st.sampled_from(DTYPES).map(np.dtype),
    shape=hnp.array_shapes(min_dims=0, max_dims=codec.MAX_NDIM, min_side=0, max_side=4),
)
int64 = st.integers(-(2**63), 2**63 - 1)
trajectories = st.builds(
    Trajectory,
    run_id=st.text(max_size=20),
    learner_epoch=int64,
    actor_id=int64,
    incarnation=int64,
    seq=int64,
    policy_version=int64,
    lease=int64,
    task_id=st.text(max_size=20),
    schema_hash=st.text(max_size=16),
    T=st.integers(1, 2**32 - 1),
    B=st.integers(1, 2**32 - 1),
    arrays=st.dictionaries(st.text(min_size=1, max_size=16), arrays, min_size=1, max_size=6),
    episodes=st.lists(st.builds(Episode, st.floats(allow_nan=False), int64), max_size=4).map(tuple),
)


@given(trajectories, st.booleans())
@settings(max_examples=200, deadline=None)
def test_roundtrip(sent: Trajectory, compress: bool) -> None:
    data = codec.encode(sent, CAP, compress)
    assert_same(codec.decode(data, CAP), sent)
    assert_same(codec.decode(memoryview(bytearray(data)), CAP), sent)


def test_arrays_are_read_only_views_of_the_buffer() -> None:
    buffer = bytearray(codec.encode(trajectory(T=64, B=16), CAP))
    whole = np.frombuffer(buffer, np.uint8)
    for array in codec.decode(memoryview(buffer), CAP).arrays.values():
        assert np.shares_memory(array, whole)
        assert not array.flags.writeable
        assert (array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) % codec.ALIGN == 0


def test_arrays_in_any_memory_order_travel_in_c_order() -> None:
    odd = np.asfortranarray(np.arange(12, dtype=">i4").reshape(3, 4))[:, ::2]
    got = codec.decode(codec.encode(trajectory(arrays={"x": odd}), CAP), CAP).arrays["x"]
    assert got.tolist() == odd.tolist()
    assert got.dtype == np.dtype("int32")


def golden(**more: np.ndarray) -> Trajectory:
    """What golden/trajectory-1.bin holds: every dtype once, values easy to write down."""
    return Trajectory(
        run_id="run-ü",
        learner_epoch=2,
        actor_id=3,
        incarnation=2**62 + 5,
        seq=4,
        policy_version=5,
        lease=6,
        task_id="LunarLander-v3",
        schema_hash="0123456789abcdef",
        T=3,
        B=2,
        arrays={
            **{name: np.arange(6).astype(name).reshape(3, 2) for name in DTYPES},
            "final_obs": np.empty((0, 8), np.float32),
            **more,
        },
        episodes=(Episode(-12.5, 97), Episode(250.25, 1000)),
    )


def golden_2() -> Trajectory:
    """What golden/trajectory-2.bin holds: the same, and an array that was packed."""
    return golden(frames=np.repeat(np.arange(6, dtype=np.uint8), 1024).reshape(3, 2, 1024))


def test_golden_bytes_still_decode() -> None:
    assert_same(codec.decode((GOLDEN / "trajectory-1.bin").read_bytes(), CAP), golden())
    assert_same(codec.decode((GOLDEN / "trajectory-2.bin").read_bytes(), CAP), golden_2())


def test_the_golden_frames_are_of_their_versions() -> None:
    assert [(GOLDEN / f"trajectory-{n}.bin").read_bytes()[4] for n in (1, 2)] == [1, 2]
    assert len((GOLDEN / "trajectory-2.bin").read_bytes()) < golden_2().nbytes, "nothing is packed"
    assert codec.encode(golden_2(), CAP)[4] == codec.VERSION == 2


def frame(header: pb.TrajectoryHeader | bytes, payload: bytes = b"", **prefix: Any) -> bytes:
    """A frame with a right CRC around whatever is given."""
    head = header if isinstance(header, bytes) else header.SerializeToString()
    body = head + bytes(-(codec.PREFIX_BYTES + len(head)) % codec.ALIGN) + payload
    fields = {
        "magic": codec.MAGIC,
        "version": codec.VERSION,
        "reserved": 0,
        "head": len(head),
        "announced": len(payload),
    }
    front = codec.PREFIX.pack(*(fields | prefix).values())
    return front + struct.pack("<I", crc32c(body, crc32c(front))) + body


def header(*described: dict[str, Any], **stamps: Any) -> pb.TrajectoryHeader:
    one = [pb.Array(**({"name": "x", "dtype": 1, "shape": [16], "nbytes": 64} | d)) for d in described]
    return pb.TrajectoryHeader(**({"t": 1, "b": 1, "arrays": one} | stamps))


def test_fields_of_a_later_writer_are_ignored() -> None:
    later = header({}).SerializeToString() + b"\xfa\x3f\x05later"  # field 127, length-delimited
    assert codec.decode(frame(later, bytes(64)), CAP).arrays["x"].tolist() == [0.0] * 16


BAD: dict[str, tuple[str, bytes]] = {
    "nothing": ("malformed", b""),
    "shorter than a prefix": ("malformed", codec.MAGIC),
    "another magic": ("malformed", frame(header({}), bytes(64), magic=b"NOPE")),
    "a higher frame version": ("version", frame(header({}), bytes(64), version=codec.VERSION + 1)),
    "frame version 0": ("version", frame(header({}), bytes(64), version=0)),
    "a reserved bit": ("version", frame(header({}), bytes(64), reserved=1)),
    "a header over its cap": ("size", frame(header({}), bytes(64), head=2**32 - 1)),
    "a payload beyond the end": ("malformed", frame(header({}), bytes(64), announced=2**64 - 1)),
    "a tail": ("malformed", frame(header({}), bytes(64)) + b"x"),
    "over the cap": ("size", bytes(CAP + 1)),
    "a header that is no message": ("malformed", frame(b"\xff" * 8, bytes(64))),
    "text that is no UTF-8": ("malformed", frame(b"\x0a\x02\xff\xfe", bytes(64))),
    "T = 0": ("empty", frame(header({}, t=0), bytes(64))),
    "B = 0": ("empty", frame(header({}, b=0), bytes(64))),
    "no arrays": ("empty", frame(header(), bytes(64))),
    "too many arrays": ("size", frame(header(*[{"name": str(i)} for i in range(65)]), bytes(64))),
    "two of one name": ("malformed", frame(header({}, {}), bytes(64))),
    "a long name": ("size", frame(header({"name": "n" * 65}), bytes(64))),
    "no name": ("size", frame(header({"name": ""}), bytes(64))),
    "a long run id": ("size", frame(header({}, run_id="r" * 257), bytes(64))),
    "dtype 0": ("dtype", frame(header({"dtype": 0}), bytes(64))),
    "an unknown dtype": ("dtype", frame(header({"dtype": 99}), bytes(64))),
    "too many axes": ("shape", frame(header({"shape": [1] * 8 + [16]}), bytes(64))),
    "shape against length": ("shape", frame(header({"shape": [17]}), bytes(64))),
    "axes that overflow 64 bits": ("shape", frame(header({"shape": [2**32 - 1] * 8}), bytes(64))),
    "overflow behind an axis of 0": ("shape", frame(header({"shape": [0] + [2**32 - 1] * 7, "nbytes": 0}), bytes(64))),
    "beyond the payload": ("shape", frame(header({"offset": 64}), bytes(64))),
    "an offset at the end of 64 bits": ("shape", frame(header({"offset": 2**64 - 64}), bytes(64))),
    "an offset out of line": ("shape", frame(header({"offset": 4}), bytes(128))),
    "a bool that is 2": ("malformed", frame(header({"dtype": 10, "shape": [64]}), b"\x02" * 64)),
    "episodes of half a kind": ("malformed", frame(header({}, episode_return=[1.0]), bytes(64))),
}


@pytest.mark.parametrize("what", BAD)
def test_each_kind_of_damage_has_its_reason(what: str) -> None:
    reason, data = BAD[what]
    with pytest.raises(Rejected) as caught:
        codec.decode(data, CAP)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at", [5, 9, 20, 40, 300, -1])
def test_a_flipped_bit_is_noticed(at: int) -> None:
    data = bytearray(codec.encode(trajectory(), CAP))
    data[at] ^= 4
    with pytest.raises(Rejected):
        codec.decode(data, CAP)


UNFIT: dict[str, tuple[str, Callable[[], Trajectory]]] = {
    "over the cap": ("size", lambda: trajectory(T=1000, B=64)),
    "object arrays": ("dtype", lambda: trajectory(arrays={"x": np.array([{}])})),
    "text arrays": ("dtype", lambda: trajectory(arrays={"x": np.array(["a"])})),
    "a lease over 63 bits": ("malformed", lambda: trajectory(lease=2**63)),
    "an actor id under 64 bits": ("malformed", lambda: trajectory(actor_id=-(2**63) - 1)),
    "T = 0": ("empty", lambda: trajectory(T=0, ends=0)),
    "no arrays": ("empty", lambda: trajectory(arrays={})),
    "too many episodes": ("size", lambda: trajectory(episodes=(Episode(1.0, 1),) * 30_000)),
}


@pytest.mark.parametrize("what", UNFIT)
def test_the_writer_refuses_what_the_reader_would(what: str) -> None:
    reason, make = UNFIT[what]
    with pytest.raises(Rejected) as caught:
        codec.encode(make(), CAP)
    assert caught.value.reason == reason


WHOLE = codec.encode(trajectory(), CAP)
at = st.integers(0, len(WHOLE) - 1)


def _overwrite(i: int, patch: bytes) -> bytes:
    return WHOLE[:i] + patch + WHOLE[i + len(patch) :]


def _reframe(data: bytes) -> bytes:
    """The same damage with the CRC made right, so that the checks behind it are reached."""
    fixed = bytearray(data)
    struct.pack_into(
        "<I", fixed, codec.PREFIX.size, crc32c(data[codec.PREFIX_BYTES :], crc32c(data[: codec.PREFIX.size]))
    )
    return bytes(fixed)


mutated = st.one_of(
    st.builds(lambda i, bit: _overwrite(i, bytes([WHOLE[i] ^ (1 << bit)])), at, st.integers(0, 7)),
    st.builds(lambda i: WHOLE[:i], at),
    st.builds(_overwrite, at, st.binary(min_size=1, max_size=40)),
    st.builds(lambda i: _overwrite(i, b"\xff" * 8), at),
    st.builds(lambda i, more: WHOLE[:i] + more + WHOLE[i:], at, st.binary(max_size=40)),
    st.binary(max_size=200),
)
reframed = st.builds(_reframe, mutated.filter(lambda data: len(data) >= codec.PREFIX_BYTES))


@given(st.one_of(mutated, reframed))
@settings(max_examples=1000, deadline=None)
def test_mutated_records_are_rejected_and_nothing_else_happens(data: bytes) -> None:
    tracemalloc.start()
    with contextlib.suppress(Rejected):
        validate(codec.decode(data, CAP), Expected(SCHEMA, "run"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
