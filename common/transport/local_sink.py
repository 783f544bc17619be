"""The actors' half of local://: every record in a memory file, its descriptor handed over, kept until it is taken.

When the learner is gone without a word, a sink looks for a new one on the same address for ``reconnect_s`` and gives
it, in order, whatever the old one had not taken. A record may then arrive twice (taken, but not said so in time): the
learner knows it by its lease.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.common import codec
from headrace.common.errors import Closed, NoAnswer, TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits
from headrace.common.transport.memory_file import BYE, RECORD, TAKEN, Files, socket_path
from headrace.common.types import Trajectory
from headrace.common.unix_socket import address
from headrace.common.waiting import FIRST_WORD_S

MAX_PENDING = 32  # records; the kernel bounds descriptors under way per user
MAX_SPARE = 2  # files

_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)
_GONE = (errno.EPIPE, errno.ECONNRESET)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25
_log = logging.getLogger("headrace.local")


@dataclass(frozen=True, slots=True)
class _Pending:
    """A record that was put and not taken yet."""

    fd: int
    nbytes: int
    put_at_s: float


class LocalSink:
    """The writing half, for one thread. Raises :class:`NoAnswer` when no learner listens within ``reconnect_s``, and
    :class:`Closed` when ``stop()`` comes true before one does."""

    def __init__(
        self,
        url: str,
        limits: Limits,
        metrics: Metrics,
        key: str,
        reconnect_s: float = 30.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._path = socket_path(url)
        self._limits = limits
        self._metrics = metrics
        self._reconnect_s = reconnect_s
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._files = Files(MAX_SPARE)
        self._sent = 0  # how many of _pending the present connection has been given
        self._closed = ""
        self._link: socket.socket | None = None
        self._connected_at_s = self._lost_at_s = time.monotonic()
        self._pause_s = 0.0  # before the next connect
        try:
            self._connect(self._lost_at_s + reconnect_s, stop=stop)
        except Closed:
            raise
        except TransportError as e:
            raise NoAnswer(f"carrier {url!r}: no learner listens there ({key} waited {reconnect_s:g} s)") from e

    def put(self, trajectory: Trajectory, timeout_s: float | None = None) -> None:
        """Hand over one fragment; waits while ``limits.queue_bytes`` are not taken. A put that raises left nothing."""
        self._check_open()
        self.put_frame(codec.encode_parts(trajectory, self._limits.record_bytes), timeout_s)

    def put_frame(self, parts: Sequence[codec.Buffer], timeout_s: float | None = None) -> None:
        """Hand over an encoded record."""
        self._check_open()
        now = time.monotonic()
        deadline = None if timeout_s is None else now + timeout_s
        nbytes = sum(len(p) for p in parts)
        self._hear(deadline)
        while not self._has_room(nbytes):
            self._wait(deadline, "the learner takes nothing")
        try:
            self._pending.append(_Pending(self._files.store(parts), nbytes, now))
        except OSError as e:
            raise TransportError(f"carrier local://{self._path}: no memory for a record: {e}") from e
        self._count(nbytes)
        try:
            self._hand_over()
            while self._sent < len(self._pending):
                self._wait(deadline, "the learner cannot be reached")
        except BaseException:
            if self._sent < len(self._pending):
                self._drop(self._pending.pop())
            raise
        self._metrics.inc("transport_records_total", direction="put")
        self._metrics.inc("transport_bytes_total", nbytes, direction="put")

    def flush(self, timeout_s: float) -> None:
        """Wait until the learner has taken everything put."""
        self._check_open()
        deadline = time.monotonic() + timeout_s
        self._hear(deadline)
        while self._pending:
            self._wait(deadline, f"{len(self._pending)} records were not taken")

    def close(self, timeout_s: float) -> None:
        """Flush, then release everything. What was not taken in time is counted as an error of kind "lost"."""
        if not self._closed:
            with contextlib.suppress(TransportError):
                self.flush(timeout_s)
            self._end("by this process")

    # --- bookkeeping ---

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"carrier local://{self._path}: closed {self._closed}")

    def _has_room(self, nbytes: int) -> bool:
        """Room for one more record; a single one always fits, whatever the budget."""
        fits = self._pending_bytes + nbytes <= self._limits.queue_bytes and len(self._pending) < MAX_PENDING
        return fits or not self._pending

    def _count(self, more_bytes: int) -> None:
        self._pending_bytes += more_bytes
        self._metrics.set("transport_unacked_bytes", self._pending_bytes)

    def _drop(self, record: _Pending) -> None:
        self._files.give_back(record.fd)
        self._count(-record.nbytes)

    def _end(self, why: str) -> None:
        self._closed = why
        self._metrics.inc("transport_errors_total", len(self._pending), kind="lost")
        while self._pending:
            self._drop(self._pending.popleft())
        self._files.close()
        if self._link is not None:
            self._link.close()

    # --- talking to the learner ---

    def _hand_over(self) -> None:
        """Send descriptors until all are sent, the kernel has no room, or nobody listens any more."""
        while self._link is not None and self._sent < len(self._pending):
            record = self._pending[self._sent]
            try:
                socket.send_fds(self._link, [RECORD.pack(record.nbytes)], [record.fd])
            except OSError as e:
                if e.errno not in (*_NO_ROOM, *_GONE):
                    raise TransportError(f"carrier local://{self._path}: {e}") from e
                return  # gone: _hear will find out
            self._sent += 1

    def _wait(self, deadline: float | None, what: str) -> None:
        """Until the learner says something. Raises :class:`TransportError` when ``deadline`` has passed."""
        began = time.monotonic()
        left_s = 1.0 if deadline is None else min(1.0, deadline - began)
        if left_s <= 0:
            raise TransportError(f"carrier local://{self._path}: timed out, {what}")
        try:
            if self._link is not None:
                poll = select.poll()
                poll.register(self._link, select.POLLIN)
                # Nobody tells when the kernel has room for a descriptor again: look soon.
                poll.poll(1000 * left_s if self._sent == len(self._pending) else min(1000 * left_s, 10))
            self._hear(deadline)
            self._hand_over()
        finally:
            self._metrics.inc("transport_blocked_seconds_total", time.monotonic() - began)

    def _hear(self, deadline: float | None) -> None:
        """Note what was taken, without waiting; where the connection is lost, find a learner again."""
        again = False
        while True:
            if self._link is None:
                self._reconnect(deadline, again)
                again = True
            assert self._link is not None
            try:
                said = self._link.recv(16)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # told once, ahead of what the learner still had to say
            if said == BYE:
                self._end("by the learner")
                self._check_open()
            elif len(said) == TAKEN.size and self._sent:
                record = self._pending.popleft()
                self._sent -= 1
                self._pause_s = 0.0
                self._metrics.observe("transport_ack_seconds", max(0.0, TAKEN.unpack(said)[0] - record.put_at_s))
                self._drop(record)
            else:
                self._lose()

    def _lose(self) -> None:
        """The connection ended; at once: then it was a refusal, and the learner is as lost as before."""
        assert self._link is not None
        self._metrics.inc("transport_errors_total", kind="disconnected")
        self._link.close()
        self._link, self._sent, now = None, 0, time.monotonic()
        if self._pause_s == 0 or now - self._connected_at_s > _LONGEST_PAUSE_S:
            self._lost_at_s, self._pause_s = now, 0.0

    def _reconnect(self, deadline: float | None, again: bool) -> None:
        until = self._lost_at_s + self._reconnect_s
        try:
            self._connect(until if deadline is None else min(until, deadline), again)
        except TransportError:
            if time.monotonic() >= until:
                self._end(f"because the learner was gone for {self._reconnect_s:g} s")
                self._check_open()
            raise
        self._metrics.inc("transport_errors_total", kind="reconnected")
        self._hand_over()

    def _connect(self, until: float, again: bool = False, stop: Callable[[], bool] = lambda: False) -> None:
        """Raises :class:`TransportError` when nobody listens by ``until``. Tries at least once, but not ``again``."""
        why: OSError | str = "a learner drops every connection"
        word_due_s = time.monotonic() + FIRST_WORD_S
        while not again or time.monotonic() < until:
            again = True
            time.sleep(max(0.0, min(self._pause_s, until - time.monotonic())))
            self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 1.5 * self._pause_s))
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            link.setblocking(False)
            try:
                with address(self._path) as a:
                    link.connect(a)
            except OSError as e:
                link.close()
                why = e
                if time.monotonic() >= word_due_s:
                    word_due_s = float("inf")
                    _log.warning("carrier local://%s: waits for a learner to listen there: %s", self._path, e)
                if stop():
                    raise Closed(f"carrier local://{self._path}: told to stop before a learner listened there") from e
                continue
            self._link, self._connected_at_s = link, time.monotonic()
            return
        raise TransportError(f"carrier local://{self._path}: no learner listens there: {why}")
