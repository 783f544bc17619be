"""A version in pieces: how the learner cuts it, what the server keeps, how a reader puts it together.

    learner: pack(weights) -> Blob =chunk messages=> server: Collector -> Blob =the same messages=> reader: Assembler

A chunk message is the protobuf encoding of a Piece (proto/paramserver.proto) with up to 1 MiB of content, built once
per version: tag 0x12, length, content. It is written and read here by hand, since protobuf copies on both sides.
Both receivers hash while they receive, and raise :class:`Rejected` for content that is not what its header announced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xxhash import xxh3_128

from headrace.common.buffers import Buffers
from headrace.common.errors import Rejected
from headrace.common.types import Weights
from headrace.common.weights import codec
from headrace.common.wire import paramserver_pb2 as pb

CHUNK_BYTES = 1 << 20
#: Largest gRPC message: a chunk, and room for what frames it (headers are far smaller).
MESSAGE_BYTES = CHUNK_BYTES + (64 << 10)
#: XXH3-128 keeps up with memory (100 MB in 5 ms; BLAKE3 30, sha256 90): with 8 readers on 2 cores the digest would
#: else be a third of the time weights take. A forger could send the digest of what he forged, whichever it is.
DIGEST_BYTES = 16
_TAG = 0x12


@dataclass(frozen=True)
class Blob:
    """A version as it travels: what it is, and its chunk messages, ready to be written to any number of streams."""

    content: pb.Content
    messages: tuple[bytes, ...]


def pack(weights: Weights, cap_bytes: int) -> Blob:
    """Copy and cut ``weights`` (one copy), so that the caller may change its tensors. Raises :class:`Rejected`."""
    parts = codec.encode_parts(weights)
    total = sum(len(p) for p in parts)
    if total > cap_bytes:
        raise Rejected("size", f"weights of {total} bytes are over the cap of {cap_bytes} bytes")
    messages = tuple(_frame(chunk) for chunk in _cut(parts))
    digest = xxh3_128()
    for message in messages:
        digest.update(_content_of(message))
    content = pb.Content(
        learner_epoch=weights.learner_epoch,
        version=weights.version,
        total_bytes=total,
        n_chunks=len(messages),
        digest=digest.digest(),
    )
    return Blob(content, messages)


class Collector:
    """The server's end: keeps the messages as they came. ``add`` each, then ``blob``."""

    def __init__(self, content: pb.Content, cap_bytes: int) -> None:
        check_content(content, cap_bytes)
        self._content, self._messages, self._digest = content, list[bytes](), xxh3_128()

    def add(self, message: bytes) -> None:
        chunk = expect_chunk(message, self._content, len(self._messages))
        self._digest.update(chunk)
        self._messages.append(message)

    def blob(self) -> Blob:
        check_whole(self._content, len(self._messages), self._digest.digest())
        return Blob(self._content, tuple(self._messages))


class Assembler:
    """A reader's end: one buffer, filled as chunks come. ``add`` each, then ``weights``, whole or not at all."""

    def __init__(self, content: pb.Content, cap_bytes: int, buffers: Buffers) -> None:
        check_content(content, cap_bytes)
        self._buffer = buffers.take(content.total_bytes)
        self._content, self._chunks, self._digest = content, 0, xxh3_128()

    def add(self, message: bytes) -> None:
        chunk = expect_chunk(message, self._content, self._chunks)
        self._digest.update(chunk)
        begin = self._chunks * CHUNK_BYTES
        self._buffer[begin : begin + len(chunk)] = chunk
        self._chunks += 1

    def weights(self) -> Weights:
        check_whole(self._content, self._chunks, self._digest.digest())
        weights = codec.decode(self._buffer)
        announced = (self._content.learner_epoch, self._content.version)
        if (weights.learner_epoch, weights.version) != announced:
            raise Rejected("malformed", f"weights are {weights.learner_epoch}/{weights.version}, announced {announced}")
        return weights


def check_content(content: pb.Content, cap_bytes: int) -> None:
    """Refuse an announcement before anything is allocated for it."""
    if content.total_bytes > cap_bytes:
        raise Rejected("size", f"weights of {content.total_bytes} bytes are over the cap of {cap_bytes} bytes")
    if content.n_chunks != -(-content.total_bytes // CHUNK_BYTES) or len(content.digest) != DIGEST_BYTES:
        raise Rejected("malformed", f"{content.n_chunks} chunks announced for {content.total_bytes} bytes of weights")
    if content.learner_epoch < 0 or content.version < 0:
        raise Rejected("malformed", f"epoch {content.learner_epoch}, version {content.version}: neither is below 0")


def expect_chunk(message: bytes, content: pb.Content, index: int) -> memoryview:
    """The content of chunk number ``index``, a view."""
    chunk = _content_of(message)
    expected = min(CHUNK_BYTES, content.total_bytes - index * CHUNK_BYTES)
    if len(chunk) != expected:
        raise Rejected("malformed", f"chunk {index} holds {len(chunk)} bytes, expected {max(expected, 0)}")
    return chunk


def check_whole(content: pb.Content, chunks: int, digest: bytes) -> None:
    """Refuse content that is cut short or not what its digest says."""
    if chunks != content.n_chunks:
        raise Rejected("malformed", f"weights end after {chunks} of {content.n_chunks} chunks")
    if digest != content.digest:
        raise Rejected("crc", f"weights of version {content.version} do not match their digest: damaged on the way")


def _cut(parts: Iterable[bytes | memoryview]) -> Iterator[list[memoryview]]:
    """Regroup ``parts`` into lists of views of CHUNK_BYTES in all (the last may be smaller)."""
    chunk: list[memoryview] = []
    room = CHUNK_BYTES
    for part in parts:
        view = memoryview(part)
        while len(view):
            chunk.append(view[:room])
            view, room = view[len(chunk[-1]) :], room - len(chunk[-1])
            if room == 0:
                yield chunk
                chunk, room = [], CHUNK_BYTES
    if chunk:
        yield chunk


def _frame(chunk: list[memoryview]) -> bytes:
    length = sum(len(view) for view in chunk)
    prefix = bytearray([_TAG])
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return b"".join([prefix, *chunk])


def _content_of(message: bytes) -> memoryview:
    """Read tag and length of a chunk message; the rest must be exactly its content."""
    length, shift, at = 0, 0, 1
    while at < min(len(message), 6):
        byte = message[at]
        length |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            break
    if len(message) < 2 or message[0] != _TAG or len(message) - at != length:
        raise Rejected("malformed", "a message in place of a chunk of weights")
    return memoryview(message)[at:]
