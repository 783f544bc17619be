"""local:// with more connections than it has room for, learners without descriptors, and addresses that are taken."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.errors import TransportError, UsageError

from .samples import trajectory
from .test_local import DEADLINE_S, Place, end, got
from .test_local_hostile import peer

LEARNER = """
import os, resource, sys, threading
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), int(sys.argv[3])))
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_source
source = open_source(sys.argv[1], limits=Limits(queue_bytes=1), metrics=Metrics("learner"),
                     dead_letter=Path(sys.argv[2]), group="test")
print("listening", flush=True)
held = []
def obey():
    for line in sys.stdin:
        if line == "fill\\n":
            try:
                while True: held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError: print("full", flush=True)
        else:
            while held: os.close(held.pop())
threading.Thread(target=obey, daemon=True).start()
while True:
    if (received := source.get(timeout_s=1.0)) is not None:
        print(received.trajectory.seq, flush=True)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


class Learner:
    """A learner process that may have ``descriptors`` open."""

    def __init__(self, place: Place, descriptors: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEARNER, place.url, str(place.folder / "dead"), str(descriptors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said = ""
        assert self.says() == "listening"

    def says(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        while "\n" not in self._said:
            ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
            assert ready, "the learner stands still"
            more = os.read(self.process.stdout.fileno(), 1000).decode()
            assert more, "the learner has ended"
            self._said += more
        line, _, self._said = self._said.partition("\n")
        return line

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


@pytest.fixture
def learner(place: Place) -> Iterator[Callable[[int], Learner]]:
    started: list[Learner] = []

    def start(descriptors: int) -> Learner:
        started.append(Learner(place, descriptors))
        return started[-1]

    yield start
    for one in started:
        end(one.process)


def test_idle_connections_are_dropped_first_and_end_nobody(place: Place, learner: Callable[[int], Learner]) -> None:
    child = learner(128)
    worker, newcomer = place.sink(), place.sink()  # the second has not sent anything either when the crowd comes
    worker.put(trajectory(0), timeout_s=5)
    assert child.says() == "0"
    with contextlib.ExitStack() as crowd:
        for _ in range(300):
            crowd.enter_context(peer(place))
        worker.put(trajectory(1), timeout_s=5)
        assert child.says() == "1"
        newcomer.put(trajectory(2), timeout_s=5)
        assert child.says() == "2"
    assert place.metrics.value("transport_errors_total", kind="disconnected") == 1, "only who had given nothing"


def test_a_learner_without_a_free_descriptor_goes_on_when_it_has_one(
    place: Place, learner: Callable[[int], Learner]
) -> None:
    child = learner(128)
    worker = place.sink()
    worker.put(trajectory(0), timeout_s=5)
    assert child.says() == "0"
    child.tell("fill")
    assert child.says() == "full"
    with peer(place), peer(place):
        threading.Timer(0.5, child.tell, ["free"]).start()
        worker.put(trajectory(1), timeout_s=DEADLINE_S)
        place.sink().put(trajectory(2), timeout_s=DEADLINE_S)
        assert {child.says(), child.says()} == {"1", "2"}


def test_an_actor_that_is_let_in_only_to_be_dropped_tries_again_unhurried_and_within_its_deadline(
    place: Place,
) -> None:
    doors = 0
    stop = threading.Event()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{place.folder}/s")
    listener.listen(100)
    listener.settimeout(0.02)

    def refuse() -> None:
        nonlocal doors
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                listener.accept()[0].close()
                doors += 1

    porter = threading.Thread(target=refuse)
    porter.start()
    try:
        sink = place.sink()
        began = time.monotonic()
        with contextlib.suppress(TransportError):
            sink.put(trajectory(0), timeout_s=0.5)
        with pytest.raises(TransportError):
            sink.flush(timeout_s=0.5)
        assert time.monotonic() - began < 5
        assert doors < 30, "it does not hammer"
    finally:
        stop.set()
        porter.join()
        listener.close()
    source = place.source()
    sink.put(trajectory(1), timeout_s=DEADLINE_S)
    while got(source) != 1:
        pass


# --- the address -----------------------------------------------------------------------------------------------------


def test_a_live_socket_of_another_kind_is_not_replaced(place: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(f"{place.folder}/s")
        other.listen()
        with pytest.raises(UsageError, match="in use") as caught:
            place.source()
        assert "\n" not in str(caught.value)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(f"{place.folder}/s")


def test_of_learners_that_start_at_once_on_a_dead_socket_one_has_it(place: Place) -> None:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
            dead.bind(f"{place.folder}/s")
        won, start = [], threading.Barrier(4)

        def claim(start: threading.Barrier = start, won: list[object] = won) -> None:
            start.wait()
            with contextlib.suppress(UsageError):
                won.append(place.source())

        threads = [threading.Thread(target=claim) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        place.close()
