"""Compressed arrays in a record: smaller where it pays, views where not, and a lie about their size costs nothing."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.common import codec, compress
from headrace.common.errors import Rejected
from headrace.common.types import Trajectory

from .samples import assert_same, trajectory
from .test_codec import CAP, _reframe, frame, header

RANDOM = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8)
ZEROS = np.zeros(300_000, np.uint8)


def mixed(**stamps: Any) -> Trajectory:
    arrays = {"random": RANDOM.reshape(3, 100_000), "zeros": ZEROS.reshape(3, 100_000), "few": np.zeros(10, np.int64)}
    return trajectory(arrays=arrays, **stamps)


def test_only_what_gets_smaller_is_packed_and_the_rest_stays_a_view() -> None:
    plain, packed = codec.encode(mixed(), CAP), bytearray(codec.encode(mixed(), CAP, compress=True))
    assert 300_000 < len(packed) < 310_000 < 600_000 < len(plain)
    got = codec.decode(memoryview(packed), CAP)
    assert_same(got, mixed())
    whole = np.frombuffer(packed, np.uint8)
    shared = {name for name, array in got.arrays.items() if np.shares_memory(array, whole)}
    assert shared == {"random", "few"}
    assert not any(array.flags.writeable for array in got.arrays.values())


def test_random_bytes_are_sampled_not_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = lz4.block.compress

    def counting(data: Any, **options: Any) -> bytes:
        seen.append(len(data))
        return bytes(real(data, **options))

    monkeypatch.setattr(compress.lz4.block, "compress", counting)
    assert compress.pack(RANDOM.data) is None
    assert compress.pack(ZEROS.data) is not None
    assert max(seen[:-1]) <= compress.SAMPLES * compress.SAMPLE_BYTES + compress.SAMPLE_BYTES
    assert seen[-1] == ZEROS.nbytes


def test_what_only_the_sample_makes_smaller_travels_as_it_is() -> None:
    misleading = RANDOM.copy()
    for i in range(compress.SAMPLES):
        at = i * (misleading.size // compress.SAMPLES)
        misleading[at : at + compress.SAMPLE_BYTES // 2] = 0
    assert compress.pack(misleading.data) is None
    one = trajectory(arrays={"x": misleading})
    assert_same(codec.decode(codec.encode(one, CAP, compress=True), CAP), one)


def test_the_cap_is_one_of_unpacked_bytes() -> None:
    with pytest.raises(Rejected, match="over the cap of 500000 bytes"):
        codec.encode(mixed(), 500_000, compress=True)
    small = codec.encode(mixed(), CAP, compress=True)
    assert len(small) < 500_000
    with pytest.raises(Rejected, match="over the cap of 500000 bytes") as caught:
        codec.decode(small, 500_000)
    assert caught.value.reason == "size"


BLOCK = lz4.block.compress(bytes(64 << 10), store_size=False)
PADDED = BLOCK + bytes(-len(BLOCK) % codec.ALIGN)


def one(nbytes: int, payload: bytes = PADDED, packed: int = len(BLOCK), **prefix: Any) -> bytes:
    """A frame of one packed array of uint8 that says to hold ``nbytes``."""
    described = {"dtype": 7, "shape": [nbytes], "nbytes": nbytes, "packed_bytes": packed}
    return frame(header(described), payload, **prefix)


HOSTILE: dict[str, tuple[str, bytes]] = {
    "more than the block can hold": ("malformed", one(compress.MAX_RATIO * len(BLOCK) + 1)),
    "as much as the cap in 300 bytes": ("malformed", one(CAP)),
    "more than it holds": ("malformed", one((64 << 10) + 1)),
    "less than it holds": ("malformed", one((64 << 10) - 1)),
    "over the cap": ("size", one(CAP + 1)),
    "far over the cap": ("size", one(2**32 - 1)),
    "no block": ("malformed", one(1000, bytes(range(1, 65)), 64)),
    "an empty array that is packed": ("malformed", one(0)),
    "beyond the payload": ("shape", one(64 << 10, packed=len(PADDED) + 1)),
    "nearly 2**64 long": ("shape", one(64 << 10, packed=2**64 - 1)),
    "packed in a frame of version 1": ("malformed", one(64 << 10, version=1)),
    "a bool that is 2": (
        "malformed",
        frame(header({"dtype": 10, "shape": [4096], "nbytes": 4096, "packed_bytes": 27}),
              lz4.block.compress(b"\x02" * 4096, store_size=False) + bytes(64)),
    ),
    "many arrays that are too much together": (
        "size",
        frame(header(*[{"name": str(i), "dtype": 7, "shape": [64 << 10], "nbytes": 64 << 10,
                        "packed_bytes": len(BLOCK)} for i in range(17)]), PADDED),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_lie_is_refused_before_anything_is_allocated_for_it(what: str) -> None:
    reason, data = HOSTILE[what]
    tracemalloc.start()
    try:
        with pytest.raises(Rejected) as caught:
            codec.decode(data, CAP)
        assert tracemalloc.get_traced_memory()[1] < 256 << 10
    finally:
        tracemalloc.stop()
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=3000), st.integers(1, 400))
@settings(max_examples=300, deadline=None)
def test_pack_and_unpack(data: bytes, times: int) -> None:
    raw = data * times
    if (packed := compress.pack(memoryview(raw))) is not None:
        assert len(packed) < len(raw)
        assert compress.unpack(memoryview(packed), len(raw)) == raw


WHOLE = codec.encode(mixed(), CAP, compress=True)
HEAD, TAIL = 400, len(WHOLE) - 1500  # the header and, last but for a small array, the packed one
places = st.integers(0, HEAD) | st.integers(TAIL, len(WHOLE) - 1)


@given(st.lists(st.tuples(places, st.binary(min_size=1, max_size=12)), min_size=1, max_size=4), st.booleans())
@settings(max_examples=1000, deadline=None)
def test_mutated_packed_records_are_rejected_and_nothing_else_happens(
    patches: list[tuple[int, bytes]], crc: bool
) -> None:
    data = bytearray(WHOLE)
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    tracemalloc.start()
    with contextlib.suppress(Rejected):
        codec.decode(_reframe(bytes(data)) if crc else bytes(data), CAP)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
