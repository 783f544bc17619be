"""local://, where it goes beyond the contract: learners that die and come back, and producers that misbehave."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.errors import Closed, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport.local import LocalSource
from headrace.common.transport.local_sink import LocalSink

from .carriers import LIMITS
from .samples import assert_same, trajectory

DEADLINE_S = 30.0

LEARNER = """
import sys
from pathlib import Path
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_source
source = open_source(sys.argv[1], limits=Limits(queue_bytes=1), metrics=Metrics("learner"),
                     dead_letter=Path(sys.argv[2]), group="test")
print("listening", flush=True)
while True:
    if (received := source.get(timeout_s=1.0)) is not None:
        print(received.trajectory.seq, flush=True)
        if len(sys.argv) > 3: sys.stdin.readline()
"""


class Place:
    """An address, and the two halves on it, closed at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"local://{folder}/s"
        self.metrics = Metrics("test")
        self._open: list[Callable[[], None]] = []

    def source(self, url: str = "") -> LocalSource:
        source = LocalSource(url or self.url, LIMITS, self.metrics, self.folder / "dead")
        self._open.append(source.close)
        return source

    def sink(self, url: str = "", reconnect_s: float = DEADLINE_S) -> LocalSink:
        sink = LocalSink(url or self.url, LIMITS, self.metrics, "0", reconnect_s)
        self._open.append(lambda: sink.close(0.1))
        return sink

    def close(self) -> None:
        for close in reversed(self._open):
            close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def got(source: LocalSource) -> int:
    received = source.get(timeout_s=DEADLINE_S)
    assert received is not None
    return received.trajectory.seq


def learner(place: Place, *more: str) -> subprocess.Popen[str]:
    """A learner process; each line it prints is the number of a record it got."""
    child = subprocess.Popen(
        [sys.executable, "-c", LEARNER, place.url, str(place.folder / "dead"), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "listening\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate(timeout=DEADLINE_S)


def not_taken(sink: LocalSink) -> int:
    """Records that the learner, who stands still, has not said to have taken."""
    with pytest.raises(TransportError) as caught:
        sink.flush(0.05)
    found = re.search(r"(\d+) records were not taken", str(caught.value))
    assert found, caught.value
    return int(found[1])


def test_a_learner_killed_and_started_again_gets_what_was_not_taken(place: Place) -> None:
    first = learner(place, "slowly")
    sink = place.sink()
    try:
        for seq in range(6):
            sink.put(trajectory(seq), timeout_s=5)
        assert first.stdout is not None
        assert first.stdout.readline() == "0\n"
        until = time.monotonic() + DEADLINE_S
        while not_taken(sink) > 4:  # it holds one more in its queue, taken: those two are lost with it
            assert time.monotonic() < until
    finally:
        end(first)
    second = learner(place)
    try:
        sink.put(trajectory(6), timeout_s=DEADLINE_S)
        sink.flush(DEADLINE_S)
        assert second.stdout is not None
        seqs = [int(second.stdout.readline())]
        while seqs[-1] != 6:
            seqs.append(int(second.stdout.readline()))
    finally:
        end(second)
    assert seqs == [2, 3, 4, 5, 6], "in order, without a gap"
    assert place.metrics.value("transport_errors_total", kind="disconnected") == 1
    assert place.metrics.value("transport_errors_total", kind="reconnected") == 1


def test_a_learner_that_stays_away_closes_the_sink(place: Place) -> None:
    child = learner(place)
    sink = place.sink(reconnect_s=0.5)
    end(child)
    began = time.monotonic()
    with pytest.raises(Closed, match=r"gone for 0\.5 s"):
        sink.put(trajectory(), timeout_s=DEADLINE_S)
    assert 0.4 < time.monotonic() - began < 10
    with pytest.raises(Closed):
        sink.put(trajectory(1))


def test_put_and_flush_keep_their_deadlines_while_the_learner_is_away(place: Place) -> None:
    child = learner(place)
    sink = place.sink()
    end(child)
    for _ in range(2):
        with pytest.raises(TransportError) as caught:
            sink.put(trajectory(0), timeout_s=0.2)
        assert not isinstance(caught.value, Closed)
    source = place.source()
    sink.put(trajectory(1), timeout_s=5)
    assert got(source) == 1, "the puts that raised must have left nothing"


def test_closing_the_learner_with_unread_records_still_says_goodbye(place: Place) -> None:
    source, sink = place.source(), place.sink()
    big = trajectory(T=1000)

    def fill() -> None:
        while True:
            sink.put(big, timeout_s=0.2)

    with pytest.raises(TransportError, match="timed out"):
        fill()
    source.close()
    began = time.monotonic()
    with pytest.raises(Closed, match="by the learner"):
        sink.put(big, timeout_s=DEADLINE_S)
    assert time.monotonic() - began < 5
    assert place.metrics.value("transport_unacked_bytes") == 0
    assert place.metrics.value("transport_errors_total", kind="lost") > 0


def test_an_actor_may_start_before_its_learner(place: Place) -> None:
    made: list[LocalSource] = []
    timer = threading.Timer(0.3, lambda: made.append(place.source()))
    timer.start()
    sink = place.sink()
    timer.join()
    sink.put(trajectory(3), timeout_s=5)
    assert got(made[0]) == 3


def test_who_waits_for_a_learner_can_be_told_to_stop(place: Place) -> None:
    """An actor that comes up as its run ends: it is given some seconds to go, and killed after them."""
    until_s = time.monotonic() + 0.3
    with pytest.raises(Closed, match="told to stop before a learner listened"):
        LocalSink(place.url, LIMITS, place.metrics, "0", stop=lambda: time.monotonic() > until_s)
    assert time.monotonic() - until_s < 2


def test_nobody_listening_is_one_clear_line(place: Place) -> None:
    with pytest.raises(UsageError, match="no learner listens") as caught:
        place.sink(reconnect_s=0.1)
    assert "\n" not in str(caught.value)


def test_two_learners_on_one_address(place: Place) -> None:
    source = place.source()
    with pytest.raises(UsageError, match="another process listens"):
        place.source()
    place.sink().put(trajectory(4), timeout_s=5)
    assert got(source) == 4


def test_an_address_longer_than_a_socket_address(place: Place) -> None:
    url = f"local://{place.folder}/{'long' * 30}/{'name' * 20}"
    source = place.source(url)
    place.sink(url).put(trajectory(5), timeout_s=5)
    assert got(source) == 5


@pytest.mark.parametrize("url", ["local://host/path", "local:path", "local://", "local:///", "local:///a?b=c"])
def test_a_bad_address_is_one_clear_line(url: str, place: Place) -> None:
    with pytest.raises(UsageError, match="use local:///path") as caught:
        place.source(url)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_socket_is_not_removed(place: Place) -> None:
    (place.folder / "s").write_text("mine")
    with pytest.raises(UsageError, match="cannot listen"):
        place.source()
    assert (place.folder / "s").read_text() == "mine"


def test_who_writes_waits_for_the_next_reader_unless_it_is_told_that_there_is_none(place: Place) -> None:
    sink, source = place.sink, place.source()
    writer = sink()
    writer.put(trajectory(0), timeout_s=5)
    assert got(source) == 0
    source.close(5, for_good=False)
    source = place.source()
    writer.put(trajectory(1), timeout_s=20)
    assert got(source) == 1
    source.close(5)
    with pytest.raises(Closed):
        writer.put(trajectory(2), timeout_s=20)
    writer.close(5)


def open_files() -> set[tuple[int, int]]:
    """What this process has open, by device and inode."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed them
            stat = os.fstat(int(fd))
            found.add((stat.st_dev, stat.st_ino))
    return found


def test_descriptors_are_given_back(place: Place) -> None:
    def left() -> set[tuple[int, int]]:
        gc.collect()  # what earlier tests left is not ours to count
        before = open_files()
        source, sink = place.source(), place.sink()
        for seq in range(50):
            sink.put(trajectory(seq), timeout_s=5)
            assert got(source) == seq
        sink.close(5)
        source.close()
        return open_files() - before

    assert not all(left() for _ in range(3)), "threads of earlier tests may open something once, not every time"


def test_a_file_used_again_changes_nothing_that_was_got(place: Place) -> None:
    source, sink = place.source(), place.sink()
    sent = [trajectory(seq, T=1 + 97 * seq % 200, ends=1) for seq in range(20)]
    received = []
    for one in sent:
        sink.put(one, timeout_s=5)
        sink.flush(5)
        received.append(source.get(timeout_s=DEADLINE_S))
    for one, other in zip(sent, received, strict=True):
        assert other is not None
        assert_same(other.trajectory, one)
