"""What a hostile sender of records may do beside wrong numbers: junk, forgery, floods, poison, strange descriptors.

Over local:// and kafka://; the sender has the actors' token where it takes leases.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from headrace.common.wire import trajectory_pb2 as tp

from . import books, frames
from .client import life
from .conftest import Target
from .forge import Forger
from .senders import LENGTH, LocalSender

pytestmark = pytest.mark.timeout(300)
Change = Callable[[tp.TrajectoryHeader], object]


@pytest.fixture(scope="module", params=["local", "kafka"])
def victim(request: pytest.FixtureRequest) -> Iterator[Target]:
    """A run over each carrier."""
    return request.getfixturevalue("target" if request.param == "local" else "kafka_target")


@pytest.fixture
def forger(victim: Target) -> Forger:
    """Against the run as it is now, undisturbed again."""
    return victim.forger()


@pytest.fixture
def local(target: Target) -> Forger:
    """Over local:// only."""
    return target.forger()


CHANGES: dict[str, Change] = {
    "foreign run": lambda h: setattr(h, "run_id", "nobody"),
    "no run": lambda h: setattr(h, "run_id", ""),
    "foreign schema": lambda h: setattr(h, "schema_hash", "0" * 16),
    "long run": lambda h: setattr(h, "run_id", "x" * 1_000_000),
    "newline in the run": lambda h: setattr(h, "run_id", '\n\r"}\x1b[2J../../x'),
    "path in the task": lambda h: setattr(h, "task_id", "../../../../x"),
    "no arrays": lambda h: h.ClearField("arrays"),
    "same array twice": lambda h: h.arrays.append(h.arrays[0]),
    "a thousand arrays": lambda h: h.arrays.extend([h.arrays[0]] * 1000),
    "long name": lambda h: setattr(h.arrays[0], "name", "obs" * 1000),
    "a thousand axes": lambda h: h.arrays[0].shape.extend([1] * 1000),
    "axes of nothing": lambda h: h.arrays[0].shape.extend([2**32 - 1] * 3 + [0]),
    "axes that overflow": lambda h: h.arrays[0].shape.extend([2**32 - 1] * 4),
    "overlapping arrays": lambda h: setattr(h.arrays[1], "offset", 0),
    "nan return": lambda h: (h.episode_return.append(float("nan")), h.episode_length.append(1)),
    "huge return": lambda h: (h.episode_return.append(1e300), h.episode_length.append(1)),
    "lengths without returns": lambda h: h.episode_length.extend([1] * 20),
    "a hundred thousand returns": lambda h: (
        h.episode_return.extend([1.0] * 100_000),
        h.episode_length.extend([1] * 100_000),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_that_is_wrong_in_one_thing_is_refused(forger: Forger, change: str) -> None:
    before, header = forger.run.rejected, forger.header()
    CHANGES[change](header)
    forger.put_and_leave(header)
    forger.run.goes_on(change, versions=2)
    forger.refused(before, 1, change)


def test_a_fragment_with_an_episode_that_was_cut_off_is_taken(forger: Forger) -> None:
    """Otherwise the poison below might be refused for another reason than being poison."""
    before, header = forger.run.rejected, forger.header()
    forger.put_and_leave(header, frames.with_truncation(header, forger.payload))
    forger.run.goes_on("a record that is right", versions=5)
    assert forger.run.rejected == before, forger.run.row()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38], ids=str)
@pytest.mark.parametrize("name", ["obs", "reward", "behaviour_logp", "final_obs"])
def test_poisoned_arrays_do_not_reach_the_policy(forger: Forger, name: str, value: float) -> None:
    before, header = forger.run.rejected, forger.header()
    payload = frames.with_truncation(header, forger.payload)
    forger.put_and_leave(header, frames.poison(header, payload, name, value))
    forger.run.goes_on(f"{name} holds {value}", versions=5)
    forger.refused(before, 1, f"{name} holds {value}")
    losses = {k: v for k, v in forger.run.row()["train"].items() if v is None or v != v or abs(v) > 1e30}
    assert not losses, losses


def test_two_thousand_pieces_of_junk(forger: Forger) -> None:
    rng, before = random.Random(0), forger.run.rejected
    honest = frames.record(forger.header(), forger.payload)
    for i in range(2000):
        junk = bytearray(honest)
        kind = i % 5
        if kind == 0:
            junk = bytearray(rng.randbytes(rng.randrange(1, 300)))
        elif kind == 1:
            del junk[rng.randrange(1, len(junk)) :]
        elif kind == 2:
            junk[rng.randrange(len(junk))] ^= 1 << rng.randrange(8)
        else:  # what the CRC says is right
            at = rng.randrange(frames.PREFIX.size if kind == 3 else len(junk))
            junk[at] ^= 1 << rng.randrange(8)
            junk = bytearray(frames.seal(bytes(junk[: frames.PREFIX.size]), bytes(junk[frames.PREFIX_BYTES :])))
        forger.sender.put(bytes(junk))
    forger.be_somebody_else()
    forger.run.goes_on("2000 pieces of junk", versions=5)
    forger.refused(before, 1900, "2000 pieces of junk")


def test_records_for_the_leases_of_others(forger: Forger) -> None:
    """Every lease near the one given now, under every honest actor's name, at once and again."""
    before, header = forger.run.rejected, forger.header()
    mine = header.lease
    for lease in range(mine - 30, mine + 30):
        for actor_id in range(forger.run.actors):
            header.lease, header.actor_id, header.incarnation = max(0, lease), actor_id, life()
            forger.put(header)
    forger.be_somebody_else()
    forger.run.goes_on("records for the leases of others", versions=5)
    forger.refused(before, 110, "records for the leases of others")


def test_one_record_five_hundred_times(forger: Forger) -> None:
    before, header = forger.run.rejected, forger.header()
    for seq in range(500):
        header.seq = seq % 2
        forger.put(header)
    forger.run.goes_on("one record 500 times", versions=5)
    forger.refused(before, 499, "one record 500 times")


def test_oversize_records(forger: Forger) -> None:
    header = forger.header()
    for size in (9 << 20, 40 << 20):
        forger.put(header, bytes(size))
    forger.be_somebody_else()
    forger.run.goes_on("oversize records", versions=3)


def test_packets_that_lie(local: Forger) -> None:
    """Lengths and descriptors of local:// that no honest actor hands over."""
    path = local.run.url.removeprefix("local://")
    for packet in (b"", b"\0", bytes(8), b"\xff" * 8, LENGTH.pack(2**63), LENGTH.pack(1 << 40), bytes(4096)):
        for n_files in (0, 1, 3):
            one = LocalSender(path)
            one.put_raw(b"x" * 100, packet, n_files)
            one.close()
    local.run.goes_on("packets that lie", versions=5)


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "zero", "write only", "eventfd", "self"])
def test_descriptors_that_are_no_memory_files(local: Forger, kind: str) -> None:
    """Some of them are never read to the end, some cannot be read at all."""
    one, opened = LocalSender(local.run.url.removeprefix("local://")), []
    if kind == "pipe":
        opened = list(os.pipe())
    elif kind == "socket":
        opened = [s.detach() for s in socket.socketpair()]
    elif kind == "folder":
        opened = [os.open(local.run.root, os.O_RDONLY)]
    elif kind == "zero":
        opened = [os.open("/dev/zero", os.O_RDONLY)]
    elif kind == "write only":
        opened = [os.open(local.run.root / "w", os.O_WRONLY | os.O_CREAT)]
    elif kind == "eventfd":
        opened = [os.eventfd(0)]
    else:
        opened = [os.dup(one._socket.fileno())]
    one.send(LENGTH.pack(4 << 20), opened[:1])
    local.run.goes_on(f"a descriptor of a {kind}", versions=5)
    one.close()
    for fd in opened:
        os.close(fd)


def test_a_memory_file_that_changes_under_the_reader(local: Forger) -> None:
    one, header = LocalSender(local.run.url.removeprefix("local://")), local.header()
    data, stop = frames.record(header, local.payload) + bytes(4 << 20), threading.Event()
    fd = os.memfd_create("hostile")

    def shake() -> None:
        while not stop.is_set():
            os.truncate(fd, 0)
            os.pwrite(fd, data, 0)

    thread = threading.Thread(target=shake)
    thread.start()
    ends = time.monotonic() + 3.0
    one._socket.setblocking(False)
    while time.monotonic() < ends:
        try:
            one.send(LENGTH.pack(len(data)), [fd])
        except (BlockingIOError, OSError):
            time.sleep(0.01)
    stop.set()
    thread.join()
    local.run.goes_on("a memory file that changes", versions=5)
    one.close()
    os.close(fd)
    local.be_somebody_else()


def test_three_hundred_senders_that_say_nothing(local: Forger) -> None:
    path = local.run.url.removeprefix("local://")
    silent = [LocalSender(path) for _ in range(300)]
    local.run.goes_on("300 silent senders", versions=5)
    late = LocalSender(path)
    header, before = local.header(), local.run.rejected
    late.put(frames.record(header, local.payload))
    local.run.goes_on("300 silent senders and one that speaks", versions=2)
    assert local.run.rejected == before
    for one in (*silent, late):
        one.close()


def test_the_books_are_plausible_at_the_end(forger: Forger) -> None:
    run = forger.run
    run.finish()
    books.check(run)
