"""local:// among peers that are not what they should be: what one does costs the others nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crc32c import crc32c

from headrace.common import codec
from headrace.common.errors import TransportError
from headrace.common.transport.memory_file import RECORD
from headrace.common.types import Episode
from headrace.common.wire import trajectory_pb2 as pb

from .carriers import LIMITS
from .samples import trajectory
from .test_local import DEADLINE_S, Place, got

FRAME = codec.encode(trajectory(), LIMITS.record_bytes)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


@contextlib.contextmanager
def peer(place: Place) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(DEADLINE_S)
        link.connect(f"{place.folder}/s")
        yield link


def hand_over(link: socket.socket, fds: list[int], announced: int = len(FRAME)) -> None:
    socket.send_fds(link, [RECORD.pack(announced)], fds)
    for fd in fds:
        os.close(fd)


# --- packets and descriptors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [b"hello", b"x" * 8, b"y" * 100_000], ids=["short", "no descriptor", "long"])
def test_a_producer_that_breaks_the_protocol_is_dropped_alone(place: Place, packet: bytes) -> None:
    source, good = place.source(), place.sink()
    with peer(place) as bad:
        bad.send(packet)
        assert bad.recv(16) == b"", "the connection is closed"
    good.put(trajectory(8), timeout_s=5)
    assert got(source) == 8
    assert place.metrics.value("transport_errors_total", kind="protocol") == 1


def _memory(data: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, data)
    return fd


def _disk(data: bytes) -> int:
    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        file.write(data)
        file.flush()
        return os.dup(file.fileno())


def _pipe(data: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


def _folder(data: bytes) -> int:
    return os.open("/", os.O_RDONLY)


def _device(data: bytes) -> int:
    return os.open("/dev/zero", os.O_RDONLY)


def _path(data: bytes) -> int:
    return os.open("/dev/zero", os.O_PATH)


@pytest.mark.parametrize(
    ("reason", "make", "announced"),
    [
        ("malformed", _pipe, len(FRAME)),
        ("malformed", _folder, len(FRAME)),
        ("malformed", _path, len(FRAME)),
        ("malformed", _memory, len(FRAME) + 1),
        ("malformed", _memory, len(FRAME) - 64),
        ("malformed", _memory, 0),
        ("size", _memory, 2**64 - 1),
    ],
)
def test_a_descriptor_that_is_not_what_it_says_is_refused(
    place: Place, reason: str, make: Callable[[bytes], int], announced: int
) -> None:
    source, good = place.source(), place.sink()
    with peer(place) as bad:
        hand_over(bad, [make(FRAME)], announced)
        assert len(bad.recv(16)) == 8, "it is taken, into the dead letters"
    good.put(trajectory(7), timeout_s=5)
    assert got(source) == 7
    assert place.metrics.value("learner_rejected_total", reason=reason) == 1


@pytest.mark.parametrize("make", [_disk, _device])
def test_only_memory_files_are_read(place: Place, make: Callable[[bytes], int]) -> None:
    """Whoever reads anything else may wait: for a disk, for a device, for the owner of a FUSE file."""
    source, good = place.source(), place.sink()
    with peer(place) as bad:
        hand_over(bad, [make(FRAME)])
        assert len(bad.recv(16)) == 8
    good.put(trajectory(7), timeout_s=5)
    assert got(source) == 7
    (line,) = (place.folder / "dead" / "index.jsonl").read_text().splitlines()
    assert "no memory file" in line


def test_an_empty_record_is_kept_empty(place: Place) -> None:
    """Files are used again: behind what was announced lies what another record has left."""
    source, sink = place.source(), place.sink()
    for record in (b"junk" * 100, b""):
        sink.put_frame([record], timeout_s=5)
        sink.flush(timeout_s=5)
    assert source.get(timeout_s=0.1) is None
    assert [(place.folder / "dead" / f"malformed-{n}.bin").read_bytes() for n in range(2)] == [b"junk" * 100, b""]


def test_what_is_too_large_is_kept_cut(place: Place) -> None:
    place.source()
    with peer(place) as bad:
        hand_over(bad, [_memory(b"z" * (LIMITS.record_bytes + 1))], LIMITS.record_bytes + 1)
        assert len(bad.recv(16)) == 8
    letter = (place.folder / "dead" / "size-0.bin").read_bytes()
    assert len(letter) == 64 << 10
    assert set(letter) == {ord("z")}
    assert '"kept_bytes": 65536' in (place.folder / "dead" / "index.jsonl").read_text()


def test_a_full_disk_costs_the_letters_and_nothing_else(place: Place) -> None:
    (place.folder / "dead").write_text("no folder")
    source, good = place.source(), place.sink()
    with peer(place) as bad:
        hand_over(bad, [_memory(b"junk")], 4)
        assert len(bad.recv(16)) == 8
    good.put(trajectory(7), timeout_s=5)
    assert got(source) == 7
    assert place.metrics.value("transport_errors_total", kind="dead_letter") == 1


def lingering() -> tuple[int, socket.socket]:
    """A socket whose last close waits for a minute, since nobody reads what it has still to send; and its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = socket.create_connection(server.getsockname())
        other = server.accept()[0]
    link.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            link.send(bytes(1 << 20))
    link.setblocking(True)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    return link.detach(), other


@pytest.mark.parametrize("where", ["alone", "second", "behind"])
def test_a_descriptor_that_takes_its_time_to_be_closed_keeps_nobody_waiting(place: Place, where: str) -> None:
    source, good = place.source(), place.sink()
    with contextlib.suppress(TransportError):
        while True:
            good.put(trajectory(0, T=1000), timeout_s=0.2)
    fd, other = lingering()  # the reader waits for room: it gets to see this when nobody else has it any more
    with other, peer(place) as bad:
        if where == "behind":
            bad.send(b"garbage")  # the connection is dropped with the rest unread
        hand_over(bad, [_memory(FRAME), fd] if where == "second" else [fd])
        while source.get(timeout_s=0.5) is not None:
            pass
        with contextlib.suppress(ConnectionResetError):
            assert len(bad.recv(16)) == (8 if where == "alone" else 0)
        good.put(trajectory(7), timeout_s=5)
        good.flush(timeout_s=5)
        assert got(source) == 7


def test_a_file_cut_short_or_rewritten_while_it_is_read_costs_a_record(place: Place) -> None:
    """No view of a file that somebody else may change is ever kept, nor mapped: no SIGBUS, no change after the CRC."""
    source = place.source()
    fd, stop = _memory(FRAME), threading.Event()

    def change() -> None:
        while not stop.is_set():
            os.ftruncate(fd, 0)
            os.pwrite(fd, FRAME, 0)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with peer(place) as bad:
            for _ in range(100):
                socket.send_fds(bad, [RECORD.pack(len(FRAME))], [fd])
                assert len(bad.recv(16)) == 8
                while (received := source.get(timeout_s=0)) is not None:
                    assert codec.encode(received.trajectory, LIMITS.record_bytes) == FRAME
    finally:
        stop.set()
        changing.join()
        os.close(fd)


# --- records ---------------------------------------------------------------------------------------------------------


def test_small_records_of_many_objects_are_counted_as_what_they_hold(place: Place) -> None:
    """5,000 episodes are 40 kB on the wire and over a megabyte of objects."""
    source, sink = place.source(), place.sink()
    crowded = trajectory(episodes=tuple(Episode(float(i), 1) for i in range(5000)))
    for _ in range(10):
        sink.put(crowded, timeout_s=5)
    with pytest.raises(TransportError, match="9 records were not taken"):
        sink.flush(timeout_s=0.5)
    assert source.backlog() == 1
    assert got(source) == 0


def overlapping(cap_bytes: int) -> bytes:
    """A valid frame under the cap, whose arrays lie over each other: apart, with their header, they are over it."""
    n = cap_bytes // 2 // codec.ALIGN * codec.ALIGN
    arrays = [pb.Array(name=name, dtype=pb.DTYPE_UINT8, shape=[n], offset=0, nbytes=n) for name in "ab"]
    head = pb.TrajectoryHeader(run_id="another", t=1, b=1, arrays=arrays).SerializeToString()
    prefix = codec.PREFIX.pack(codec.MAGIC, codec.VERSION, 0, len(head), n)
    rest = head + bytes(-(codec.PREFIX_BYTES + len(head)) % codec.ALIGN) + bytes(n)
    return prefix + codec.CRC.pack(crc32c(rest, crc32c(prefix))) + rest


def test_a_refused_record_that_cannot_be_written_down_again_costs_its_letter(place: Place) -> None:
    source = place.source()
    place.sink().put_frame([overlapping(LIMITS.record_bytes)], timeout_s=5)
    received = source.get(timeout_s=DEADLINE_S)
    assert received is not None
    source.reject(received, "run", "of another run")
    (line,) = (place.folder / "dead" / "index.jsonl").read_text().splitlines()
    assert "of another run" in line
    assert '"kept_bytes": 0' in line
