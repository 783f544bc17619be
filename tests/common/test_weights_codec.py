"""Weights <-> bytes: what goes in comes out, any safetensors library reads it, and nothing bad gets in."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.common.buffers import Buffers
from headrace.common.errors import Rejected
from headrace.common.types import DTYPES, Weights
from headrace.common.weights import chunks, codec
from headrace.common.weights.chunks import CHUNK_BYTES, Assembler, Blob, Collector, pack

GOLDEN = Path(__file__).parent / "golden" / "weights-1.safetensors"
CAP = 64 << 20


def sample() -> Weights:
    tensors = {
        "layer.weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 8,
        "layer.bias": np.array([1.5, -2.5, 3.5], np.float64),
        "count": np.array(7, np.int64),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
    }
    return Weights("run-1", 2, 41, tensors, {"epsilon": 0.125, "alpha": 3.0})


def of_bytes(nbytes: int) -> Weights:
    return Weights("run-1", 1, 1, {"w": np.random.default_rng(0).integers(0, 256, nbytes, np.uint8)})


def assert_same(a: Weights, b: Weights) -> None:
    assert (a.run_id, a.learner_epoch, a.version, dict(a.scalars)) == (
        b.run_id,
        b.learner_epoch,
        b.version,
        dict(b.scalars),
    )
    assert set(a.tensors) == set(b.tensors)
    for name, tensor in a.tensors.items():
        assert tensor.dtype == b.tensors[name].dtype
        np.testing.assert_array_equal(tensor, b.tensors[name])


def assemble(blob: Blob, cap_bytes: int = CAP) -> Weights:
    assembler = Assembler(blob.content, cap_bytes, Buffers(2))
    for message in blob.messages:
        assembler.add(message)
    return assembler.weights()


def test_round_trip() -> None:
    decoded = codec.decode(codec.encode(sample()))
    assert_same(sample(), decoded)
    assert not decoded.tensors["layer.weight"].flags.writeable


def test_when_it_was_made_travels_along() -> None:
    decoded = codec.decode(codec.encode(Weights("r", 1, 2, {}, {}, 2048, 0.25)))
    assert (decoded.env_steps, decoded.trained_s) == (2048, 0.25)
    unknown = codec.decode(codec.encode(sample()))
    assert (unknown.env_steps, unknown.trained_s) == (None, None)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trip_of_anything(data: st.DataObject) -> None:
    shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    names = data.draw(st.lists(st.text(min_size=1, max_size=9).filter(lambda n: n != "__metadata__"), unique=True))
    tensors = {}
    for name in names:
        dtype, shape = data.draw(st.sampled_from(DTYPES)), data.draw(shapes)
        tensors[name] = (rng.standard_normal(shape) * 100).astype(dtype)
    weights = Weights(data.draw(st.text(max_size=9)), 0, 3, tensors)
    assert_same(weights, codec.decode(codec.encode(weights)))


def test_the_safetensors_library_reads_it_and_writes_the_same_tensors() -> None:
    content = codec.encode(sample())
    read = safetensors.numpy.load(content)
    for name, tensor in sample().tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
    metadata = {"headrace": codec._metadata(sample())}
    assert_same(sample(), codec.decode(safetensors.numpy.save(dict(sample().tensors), metadata)))


def test_golden_bytes() -> None:
    assert_same(sample(), codec.decode(GOLDEN.read_bytes()))
    assert codec.encode(sample()) == GOLDEN.read_bytes(), "the format has changed: it needs a new number"


def test_what_is_not_contiguous_or_little_endian_arrives_all_the_same() -> None:
    tensors = {"t": np.arange(12, dtype=np.float32).reshape(3, 4).T, "b": np.arange(3, dtype=">i4")}
    decoded = codec.decode(codec.encode(Weights("r", 0, 0, tensors)))
    np.testing.assert_array_equal(decoded.tensors["t"], tensors["t"])
    np.testing.assert_array_equal(decoded.tensors["b"], tensors["b"])


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (Weights("r", 0, 0, {"x": np.zeros(2, np.complex64)}), "dtype"),
        (Weights("r", 0, 0, {"x": np.array(["a"])}), "dtype"),
        (Weights("r", 0, 0, {}, {"epsilon": float("nan")}), "nan"),
        (Weights("r", 0, 0, {"x" * codec.MAX_HEADER_BYTES: np.zeros(1)}), "size"),
    ],
)
def test_what_may_not_travel_is_refused_at_the_start(weights: Weights, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        codec.encode(weights)
    assert refused.value.reason == reason


def built(change: dict[str, Any] | None = None, about: dict[str, Any] | None = None, tail: bytes = b"") -> bytes:
    """A file with one float32 tensor of 4 and something changed."""
    meta = {"format": 1, "run_id": "r", "learner_epoch": 0, "version": 0, "scalars": {}, **(about or {})}
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **(change or {})}
    header = json.dumps({"__metadata__": {"headrace": json.dumps(meta)}, "w": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16) + tail


def test_the_hand_made_file_is_right_before_it_is_changed() -> None:
    assert codec.decode(built()).tensors["w"].shape == (4,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "malformed"),
        (struct.pack("<Q", 1 << 40), "size"),
        (struct.pack("<Q", 100) + b"{}", "malformed"),
        (struct.pack("<Q", 2) + b"[]", "malformed"),
        (struct.pack("<Q", 3000) + b"[" * 3000, "malformed"),
        (struct.pack("<Q", 2) + b"{}", "malformed"),
        (built(about={"format": 2}), "version"),
        (built(about={"version": -1}), "malformed"),
        (built(about={"version": "7"}), "malformed"),
        (built(about={"scalars": {"e": float("inf")}}), "nan"),
        (built(about={"env_steps": -1}), "malformed"),
        (built(about={"env_steps": 1.5}), "malformed"),
        (built(about={"env_steps": 2**70}), "malformed"),
        (built(about={"trained_s": float("nan")}), "malformed"),
        (built(about={"trained_s": "1"}), "malformed"),
        (built({"dtype": "F8_E4M3"}), "dtype"),
        (built({"shape": [5]}), "shape"),
        (built({"shape": [-4]}), "shape"),
        (built({"shape": [1] * 40}), "shape"),
        (built({"shape": [2**62, 2**62]}), "shape"),
        (built({"data_offsets": [4, 20]}), "malformed"),
        (built({"data_offsets": [0, 2**70]}), "shape"),
        (built({"data_offsets": [16, 0]}), "malformed"),
        (built({"data_offsets": None}), "malformed"),
        (built({"dtype": "BOOL", "shape": [16]})[:-1] + b"\2", "malformed"),
        (built(tail=b"x"), "malformed"),
        (built()[:-1], "shape"),
    ],
)
def test_malformed_content_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        codec.decode(content)
    assert refused.value.reason == reason


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 600))
def test_a_changed_or_cut_file_never_crashes(place: int, value: int, cut: int) -> None:
    content = bytearray(codec.encode(sample()))
    content[place % len(content)] = value
    with contextlib.suppress(Rejected):
        codec.decode(bytes(content[: len(content) - cut % len(content)]))


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_chunks_come_together_at_every_border(extra: int) -> None:
    overhead = len(codec.encode(of_bytes(CHUNK_BYTES))) - CHUNK_BYTES
    for n in (1, 2):
        weights = of_bytes(n * CHUNK_BYTES - overhead + extra)
        blob = pack(weights, CAP)
        assert blob.content.total_bytes == n * CHUNK_BYTES + extra
        assert len(blob.messages) == n + (extra > 0)
        assert_same(weights, assemble(blob))
        collector = Collector(blob.content, CAP)
        for message in blob.messages:
            collector.add(message)
        assert collector.blob() == blob


def test_a_chunk_message_is_the_protobuf_piece() -> None:
    blob = pack(of_bytes(CHUNK_BYTES + 5), CAP)
    pieces = [chunks.pb.Piece.FromString(m).chunk for m in blob.messages]
    assert b"".join(pieces) == codec.encode(of_bytes(CHUNK_BYTES + 5))
    assert [chunks.pb.Piece(chunk=p).SerializeToString() for p in pieces] == list(blob.messages)
    assert chunks.pb.PublishPiece.FromString(blob.messages[0]).chunk == pieces[0]


def test_pack_copies_so_that_the_learner_may_go_on() -> None:
    weights = sample()
    blob = pack(weights, CAP)
    weights.tensors["layer.weight"][:] = -1
    assert_same(sample(), assemble(blob))


def changed(blob: Blob, index: int, message: bytes) -> Blob:
    return Blob(blob.content, (*blob.messages[:index], message, *blob.messages[index + 1 :]))


def test_damaged_missing_surplus_and_swapped_chunks_are_refused() -> None:
    blob = pack(of_bytes(3 * CHUNK_BYTES), CAP)
    flipped = bytearray(blob.messages[1])
    flipped[1000] ^= 1
    swapped = (blob.messages[1], blob.messages[0], *blob.messages[2:])
    for bad, reason in [
        (changed(blob, 1, bytes(flipped)), "crc"),
        (Blob(blob.content, swapped), "crc"),
        (Blob(blob.content, blob.messages[:-1]), "malformed"),
        (Blob(blob.content, (*blob.messages, blob.messages[0])), "malformed"),
        (changed(blob, 0, b""), "malformed"),
        (changed(blob, 0, b"\x12\xff\xff\xff\xff\xff\xff"), "malformed"),
        (changed(blob, 0, b"\x0a" + blob.messages[0][1:]), "malformed"),
    ]:
        with pytest.raises(Rejected) as refused:
            assemble(bad)
        assert refused.value.reason == reason


def test_sizes_are_capped_before_anything_is_allocated() -> None:
    blob = pack(of_bytes(1000), CAP)
    with pytest.raises(Rejected, match="over the cap"):
        pack(of_bytes(1000), 999)
    with pytest.raises(Rejected, match="over the cap"):
        assemble(blob, 999)
    huge = chunks.pb.Content(total_bytes=1 << 60, n_chunks=1 << 31, digest=bytes(16))
    with pytest.raises(Rejected, match="over the cap"):
        Assembler(huge, CAP, Buffers(2))
    lying = chunks.pb.Content(total_bytes=100, n_chunks=1 << 31, digest=bytes(16))
    with pytest.raises(Rejected, match="chunks announced"):
        Collector(lying, CAP)


def test_a_buffer_is_filled_again_only_when_nobody_looks_into_it() -> None:
    buffers = Buffers(2)

    def received(value: int) -> Weights:
        blob = pack(Weights("r", 1, value, {"w": np.full(1000, value, np.float32)}), CAP)
        assembler = Assembler(blob.content, CAP, buffers)
        for message in blob.messages:
            assembler.add(message)
        return assembler.weights()

    def address(weights: Weights) -> int:
        return int(weights.tensors["w"].__array_interface__["data"][0])

    held = [received(value) for value in range(5)]
    assert [float(w.tensors["w"][-1]) for w in held] == [0, 1, 2, 3, 4]
    part = held[-1].tensors["w"][10:20]
    places = {address(held[-1]), address(held[-2])}
    held.clear()
    assert address(received(5)) in places, "the last but one is free"
    assert address(received(6)) in places
    assert part.tolist() == [4] * 10, "a slice of it keeps the whole"
