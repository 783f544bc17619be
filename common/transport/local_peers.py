"""The connections of a local:// learner: how many there may be, and who goes when there are too many.

A peer may connect and say nothing, a thousand times over; and what it hands over may take its time to be closed (a file
of FUSE asks its owner first, a TCP socket may linger), so that is left to a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

MAX_PEERS = 1024
#: Things handed over that are still being closed, beyond which nobody new is let in.
MAX_CLOSING = 256


def cap() -> int:
    """Half of the descriptors this process may have, at most: the other half is for everything else it does."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_PEERS if soft == resource.RLIM_INFINITY else max(1, min(MAX_PEERS, soft // 2))


def descriptor_left(link: socket.socket) -> bool:
    """Whether this process may have one more descriptor (tried with a copy of ``link``'s)."""
    try:
        os.close(os.dup(link.fileno()))
    except OSError:
        return False
    return True


def has_said(link: socket.socket) -> bool:
    """Whether something waits to be read (or the end of the connection)."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    return bool(poll.poll(0))


class Peers:
    """For one thread, closing aside."""

    def __init__(self) -> None:
        self.cap = cap()
        self._gave_at_s: dict[socket.socket, float] = {}  # when it last gave a record (0: never), longest there first
        self._closing: SimpleQueue[socket.socket | int | None] = SimpleQueue()
        self._closer = threading.Thread(target=self._close_things, name="local-closer", daemon=True)
        self._closer.start()

    def __len__(self) -> int:
        return len(self._gave_at_s)

    def __contains__(self, link: socket.socket) -> bool:
        return link in self._gave_at_s

    def __iter__(self) -> Iterator[socket.socket]:
        return iter(list(self._gave_at_s))

    @property
    def closing(self) -> int:
        return self._closing.qsize()

    def add(self, link: socket.socket) -> None:
        self._gave_at_s[link] = 0.0

    def gave(self, link: socket.socket) -> None:
        self._gave_at_s[link] = time.monotonic()

    def remove(self, link: socket.socket) -> None:
        del self._gave_at_s[link]
        self.close_later(link)

    def idlest(self) -> socket.socket | None:
        """Who is missed least: one that never gave a record, the longest there first; else the longest silent one."""
        return min(self._gave_at_s, key=self._gave_at_s.__getitem__, default=None)

    def close_later(self, thing: socket.socket | int) -> None:
        self._closing.put(thing)

    def end(self, timeout_s: float) -> None:
        """Let the closing thread end, once it is through with what it has; it is not waited for any longer."""
        self._closing.put(None)
        self._closer.join(timeout_s)

    def _close_things(self) -> None:
        while (thing := self._closing.get()) is not None:
            with contextlib.suppress(OSError):
                if isinstance(thing, socket.socket):
                    thing.close()
                else:
                    os.close(thing)
