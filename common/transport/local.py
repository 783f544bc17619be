"""local:///path: trajectories between processes of one Linux machine. The learner's half; the other is local_sink.py.

    actor                                            learner
    LocalSink.put                                    LocalSource
      encode into a memory file           --fd-->      reader thread: copy, check, decode -> queue (bytes bounded)
      use the file again once it is taken <-taken-                                           |
                                                       get() <------------------------------'

The address is a Unix socket (SOCK_SEQPACKET) that the learner owns. What travels over it is one small packet a record,
with the descriptor of a memory file: a record arrives whole or not at all, whenever its producer dies, and put() never
waits for the learner's Python to copy anything. docs/carriers.md has the figures behind this choice.

Peers are not trusted: what one does costs itself a connection or a record, and the others nothing. This carrier
has no log: what a learner had taken and not applied is lost with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from pathlib import Path

from headrace.common import codec
from headrace.common.buffers import Buffers
from headrace.common.errors import Rejected
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits, Received, Undecodable, UndecodableRecords, WithoutLog
from headrace.common.transport.dead_letter import DeadLetters
from headrace.common.transport.local_peers import Closer, cap, descriptor_left, has_said
from headrace.common.transport.local_sink import LocalSink
from headrace.common.transport.memory_file import BYE, RECORD, TAKEN, beginning, is_memory_file, read, socket_path
from headrace.common.transport.received_queue import ReceivedQueue
from headrace.common.unix_socket import listen

__all__ = ["LocalSink", "LocalSource"]

_KEPT_RECORDS = 8  # copies whose memory is used again
_LETTER_BYTES = 64 << 10  # read of what is too large to be read
_MAX_DESCRIPTORS = 253  # in one packet; what is not received, the kernel closes at once, in this thread
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S = 0.1
_HEARD_OUT = 16


class LocalSource(WithoutLog):
    """The reading half; owns the address. Raises :class:`UsageError` when it cannot be had."""

    def __init__(self, url: str, limits: Limits, metrics: Metrics, dead_letter: Path) -> None:
        self._path = socket_path(url)
        self._limits = limits
        self._metrics = metrics
        self._dead_letters = DeadLetters(dead_letter, metrics)
        self._undecodable = UndecodableRecords()
        self._queue = ReceivedQueue(f"carrier local://{self._path}", limits.queue_bytes, metrics)
        self._closed = False
        self._listener = listen(self._path, socket.SOCK_SEQPACKET, f"carrier local://{self._path}")
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._peers: dict[socket.socket, float] = {}  # when it last gave a record (0: never), the longest there first
        self._max_peers = cap()
        self._closer = Closer()
        self._listen_again_s = 0.0  # when, while nobody new is let in; 0: everybody is
        self._buffers = Buffers(_KEPT_RECORDS)
        self._reader = threading.Thread(target=self._run, name="local-source", daemon=True)
        self._reader.start()

    # --- the learner's thread ---

    def get(self, timeout_s: float) -> Received | None:
        return self._queue.get(timeout_s)

    def take_undecodable(self) -> list[Undecodable]:
        return self._undecodable.take()

    def backlog(self) -> int:
        return len(self._queue)

    def reject(self, received: Received, reason: str, detail: str) -> None:
        try:
            frame = codec.encode(received.trajectory, self._limits.record_bytes)
        except Rejected as e:  # its arrays lay over each other: apart they are larger than a record may be
            frame, detail = b"", f"{detail} (not kept: {e})"
        self._dead_letters.keep(reason, detail, frame, received.nbytes)

    def close(self, timeout_s: float = 5.0, for_good: bool = True) -> None:
        """Tell every producer if this is ``for_good``, and free the address. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._queue.close()
        self._wake.send(b"x")
        self._reader.join(timeout_s)
        for link in list(self._peers):
            if for_good:
                with contextlib.suppress(OSError):
                    link.send(BYE)
            self._closer.close(link)
        self._peers.clear()
        self._closer.end(timeout_s)
        self._path.unlink(missing_ok=True)  # while it is ours still: whoever comes next finds nothing to claim
        for thing in (self._listener, self._selector, self._wake, self._woken):
            thing.close()

    # --- the reader thread ---

    def _run(self) -> None:
        try:
            while not self._closed:
                for key, _ in self._selector.select(self._pause_s()):
                    if key.data is not None and not self._closed:
                        key.data()
        except Exception as e:  # to be raised where somebody looks: in get()
            self._queue.fail(e)

    def _accept(self) -> None:
        if self._closer.full:
            return self._pause("closing")
        try:
            link, _ = self._listener.accept()
        except OSError as e:
            if e.errno in _FULL:
                self._pause("descriptors")
            return  # else who knocked has gone again
        if len(self._peers) >= self._max_peers:
            self._make_room()
        link.setblocking(False)
        self._peers[link] = 0.0
        self._selector.register(link, selectors.EVENT_READ, lambda: self._read(link))

    def _make_room(self) -> None:
        """Drop who is missed least: one that never gave a record, the longest there first; else the longest silent one.

        It is heard out first: an actor that waits for its next lease does not look whether the record it sent was
        taken. (Who is dropped without need connects again at its next put.)"""
        for _ in range(_HEARD_OUT):
            idlest = min(self._peers, key=self._peers.__getitem__, default=None)
            if idlest is None or not has_said(idlest):
                break
            self._read(idlest)
        if idlest is not None and idlest in self._peers:
            self._metrics.inc("transport_errors_total", kind="crowded")
            self._drop(idlest)

    def _pause(self, kind: str) -> None:
        """Let nobody new in for a moment; who is in goes on."""
        self._metrics.inc("transport_errors_total", kind=kind)
        self._selector.unregister(self._listener)
        self._listen_again_s = time.monotonic() + _PAUSE_S

    def _pause_s(self) -> float | None:
        """What is left of the pause; None when there is none, or none any more."""
        if not self._listen_again_s:
            return None
        if (left_s := self._listen_again_s - time.monotonic()) > 0:
            return left_s
        self._listen_again_s = 0.0
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        return None

    def _read(self, link: socket.socket) -> None:
        """One packet. A producer that breaks the protocol is dropped; the others are not touched."""
        if link not in self._peers:
            return  # dropped in this turn
        if not descriptor_left(link):  # received now, the record would lose its own
            self._metrics.inc("transport_errors_total", kind="descriptors")
            return time.sleep(_PAUSE_S)
        fds: list[int] = []
        try:
            said, fds, flags, _ = socket.recv_fds(link, RECORD.size, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            if not said:
                return self._drop(link)
            if len(said) != RECORD.size or len(fds) != 1 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._metrics.inc("transport_errors_total", kind="protocol")
                return self._drop(link)
            received = self._decode(fds[0], *RECORD.unpack(said))
            if received is not None:
                self._peers[link] = time.monotonic()
            if received is None or self._queued(received):
                link.send(TAKEN.pack(time.monotonic()))
        except OSError:
            self._drop(link)  # gone, or it sends without ever reading what we say
        finally:
            for fd in fds:
                if is_memory_file(fd):
                    os.close(fd)
                else:
                    self._closer.close(fd)

    def _drop(self, link: socket.socket) -> None:
        self._selector.unregister(link)
        del self._peers[link]
        self._closer.close(link)

    def _decode(self, fd: int, nbytes: int) -> Received | None:
        """The record behind ``fd``; None when it went to the dead letters."""
        data: codec.Buffer = b""
        try:
            data = read(fd, nbytes, self._limits.record_bytes, self._buffers)
            return Received(codec.decode(data, self._limits.record_bytes), nbytes=nbytes)
        except Rejected as e:
            self._metrics.inc("learner_rejected_total", reason=e.reason)
            self._undecodable.add(e.reason)
            self._dead_letters.keep(e.reason, str(e), data or beginning(fd, min(nbytes, _LETTER_BYTES)), nbytes)
            return None

    def _queued(self, received: Received) -> bool:
        """Waits for room in the queue; False when closed meanwhile."""
        if not self._queue.put(received):
            return False
        self._metrics.inc("transport_records_total", direction="got")
        self._metrics.inc("transport_bytes_total", received.nbytes, direction="got")
        return True
