"""What a local:// learner must be able to ask and do about connections that it does not trust.

How many there may be, whether one more descriptor can be had, whether one has said something; and to close what was
handed over, which may take its time (a file of FUSE asks its owner first, a TCP socket may linger), in a thread of its
own. Who is dropped when there are too many: local.py.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import threading
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


class Closer:
    """Closes things in a thread of its own."""

    def __init__(self) -> None:
        self._things: SimpleQueue[socket.socket | int | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="local-closer", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        return self._things.qsize() >= MAX_CLOSING

    def close(self, thing: socket.socket | int) -> None:
        self._things.put(thing)

    def end(self, timeout_s: float) -> None:
        """Let the thread end, once it is through with what it has; it is not waited for any longer."""
        self._things.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (thing := self._things.get()) is not None:
            with contextlib.suppress(OSError):
                if isinstance(thing, socket.socket):
                    thing.close()
                else:
                    os.close(thing)
