"""local:///path: trajectories between processes of one Linux machine. The learner's half; the other is local_sink.py.

    actor                                            learner
    LocalSink.put                                    LocalSource
      encode into a memory file           --fd-->      reader thread: copy, check, decode -> queue (bytes bounded)
      use the file again once it is taken <-taken-                                           |
                                                       get() <------------------------------'

The address is a Unix socket (SOCK_SEQPACKET) that the learner owns. What travels over it is one small packet a record,
with the descriptor of a memory file: a record arrives whole or not at all, whenever its producer dies, and put() never
waits for the learner's Python to copy anything. docs/carriers.md has the figures behind this choice.

This carrier has no log: what a learner had taken and not applied is lost with it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import deque
from pathlib import Path

from headrace.common import codec
from headrace.common.buffers import Buffers
from headrace.common.errors import Closed, Rejected, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits, Position, Received
from headrace.common.transport.dead_letter import DeadLetters
from headrace.common.transport.local_sink import LocalSink
from headrace.common.transport.memory_file import BYE, RECORD, TAKEN, address, read, socket_path

__all__ = ["LocalSink", "LocalSource"]

_KEPT_RECORDS = 8  # copies whose memory is used again
_MIN_COST_BYTES = 4096  # what the objects around the smallest record take, roughly


class LocalSource:
    """The reading half; owns the address. Raises :class:`UsageError` when another learner listens there."""

    log_id = ""

    def __init__(self, url: str, limits: Limits, metrics: Metrics, dead_letter: Path) -> None:
        self._path = socket_path(url)
        self._limits = limits
        self._metrics = metrics
        self._dead_letters = DeadLetters(dead_letter)
        self._changed = threading.Condition()  # guards the four below
        self._queue: deque[Received] = deque()
        self._queue_bytes = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._listener = _listen(self._path)
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._links: set[socket.socket] = set()
        self._buffers = Buffers(_KEPT_RECORDS)
        self._reader = threading.Thread(target=self._run, name="local-source", daemon=True)
        self._reader.start()

    # --- the learner's thread ---

    def get(self, timeout_s: float) -> Received | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed or self._failure, timeout_s)
            if self._closed:
                raise Closed(f"carrier {self._path}: closed by this process")
            if not self._queue:
                if self._failure:
                    raise TransportError(f"carrier {self._path}: the reader failed: {self._failure}") from self._failure
                return None
            received = self._queue.popleft()
            self._count(-_cost(received))
            return received

    def position(self) -> Position:
        return {}

    def seek(self, position: Position, log_id: str = "") -> None:
        """There is no log to go back in."""

    def commit(self, position: Position) -> None:
        """There is nobody to show it to."""

    def backlog(self) -> int:
        return len(self._queue)

    def reject(self, received: Received, reason: str, detail: str) -> None:
        self._dead_letters.keep(reason, detail, codec.encode(received.trajectory, self._limits.record_bytes))

    def close(self, timeout_s: float = 5.0) -> None:
        """Tell every producer that this is for good, and free the address. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._queue.clear()
            self._count(-self._queue_bytes)
        self._wake.send(b"x")
        self._reader.join(timeout_s)
        for link in list(self._links):
            with contextlib.suppress(OSError):
                link.send(BYE)
            link.close()
        for thing in (self._listener, self._selector, self._wake, self._woken):
            thing.close()
        self._path.unlink(missing_ok=True)

    def _count(self, more_bytes: int) -> None:
        self._queue_bytes += more_bytes
        self._metrics.set("transport_queue_bytes", self._queue_bytes)
        self._changed.notify_all()

    # --- the reader thread ---

    def _run(self) -> None:
        try:
            while not self._closed:
                for key, _ in self._selector.select():
                    if key.data is not None and not self._closed:
                        key.data()
        except Exception as e:  # to be raised where somebody looks: in get()
            with self._changed:
                self._failure = e
                self._changed.notify_all()

    def _accept(self) -> None:
        link, _ = self._listener.accept()
        link.setblocking(False)
        self._links.add(link)
        self._selector.register(link, selectors.EVENT_READ, lambda: self._read(link))

    def _read(self, link: socket.socket) -> None:
        """One packet. A producer that breaks the protocol is dropped; the others are not touched."""
        fds: list[int] = []
        try:
            said, fds, flags, _ = socket.recv_fds(link, RECORD.size, 1, socket.MSG_CMSG_CLOEXEC)
            if not said:
                return self._drop(link)
            if len(said) != RECORD.size or len(fds) != 1 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._metrics.inc("transport_errors_total", kind="protocol")
                return self._drop(link)
            received = self._decode(fds[0], *RECORD.unpack(said))
            if received is None or self._admit(received):
                link.send(TAKEN.pack(time.monotonic()))
        except (ConnectionError, BlockingIOError):
            self._drop(link)  # gone, or it sends without ever reading what we say
        finally:
            for fd in fds:
                os.close(fd)

    def _drop(self, link: socket.socket) -> None:
        self._selector.unregister(link)
        self._links.discard(link)
        link.close()

    def _decode(self, fd: int, nbytes: int) -> Received | None:
        """The record behind ``fd``; None when it went to the dead letters."""
        data = memoryview(b"")
        try:
            data = read(fd, nbytes, self._limits.record_bytes, self._buffers)
            return Received(codec.decode(data, self._limits.record_bytes), nbytes=nbytes)
        except Rejected as e:
            self._metrics.inc("learner_rejected_total", reason=e.reason)
            self._dead_letters.keep(e.reason, str(e), data)
            return None

    def _admit(self, received: Received) -> bool:
        """Queue a record when there is room for it (one is always let in); False when closed meanwhile."""
        cost = _cost(received)
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self._queue or self._queue_bytes + cost <= self._limits.queue_bytes
            )
            if self._closed:
                return False
            self._queue.append(received)
            self._count(cost)
        self._metrics.inc("transport_records_total", direction="got")
        self._metrics.inc("transport_bytes_total", received.nbytes, direction="got")
        return True


def _cost(received: Received) -> int:
    return max(received.nbytes, _MIN_COST_BYTES)


def _listen(path: Path) -> socket.socket:
    """A listening socket at ``path``, for this user only; one left behind by a learner that died is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _answers(path):
        raise UsageError(f"carrier local://{path}: another learner listens there; give each run its own address")
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with address(path) as a:
            listener.bind(a)
        path.chmod(0o600)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as e:
        listener.close()
        raise UsageError(f"carrier local://{path}: cannot listen there: {e}") from e
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe, address(path) as a:
        probe.settimeout(1.0)
        try:
            probe.connect(a)
        except TimeoutError:
            return True  # too busy to answer
        except OSError:
            return False  # nothing there, no socket, or nobody behind it
        return True
