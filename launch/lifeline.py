"""What ties a supervised process to its supervisor: a socket pair with one end in each.

    supervisor                                     process
    Lifeline() --- argv: --supervised FD ------->  Attached(FD)
        ------------ end of file --------------->      the supervisor has died, whenever and however
    words() <--- what its log would not take ----  sys.stdout, sys.stderr: they never fail

The kernel closes the supervisor's end with the supervisor, before the process has run its first line as well as hours
later; a process id could be read too late, or be somebody else's by then.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

#: What is kept of words that came this way: the end of them.
_WORDS_BYTES = 16 << 10
_LOOK_S = 0.1


class Lifeline:
    """The supervisor's half. ``fd`` is the other half, to be passed to the process, until :meth:`handed_over`."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._words = b""

    @property
    def fd(self) -> int:
        return self._theirs.fileno()

    def handed_over(self) -> None:
        self._theirs.close()

    def words(self) -> bytes:
        """The end of what the process could not write to its log, so far. Never waits."""
        with contextlib.suppress(OSError):
            while said := self._ours.recv(_WORDS_BYTES):
                self._words = (self._words + said)[-_WORDS_BYTES:]
        return self._words

    def close(self) -> None:
        self._ours.close()


class Attached:
    """The process's half, from its first line on: notices that the supervisor is gone, and ends what goes on too long
    after that. ``grace_s``: how long the process may take then, which is no time while it has nothing to save."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # nothing that this process starts is tied to the supervisor
        self.grace_s, self.gone = 0.0, threading.Event()
        for number, name in ((1, "stdout"), (2, "stderr")):
            log = io.BufferedWriter(_Log(number, fd))
            setattr(sys, name, io.TextIOWrapper(log, encoding="utf-8", errors="backslashreplace", line_buffering=True))
        atexit.register(self._end_group)
        threading.Thread(target=self._watch, args=(fd,), name="lifeline", daemon=True).start()

    def _watch(self, fd: int) -> None:
        with contextlib.suppress(ConnectionError):  # it had not read all our words
            os.read(fd, 1)
        since_s = time.monotonic()
        self.gone.set()
        while time.monotonic() - since_s < self.grace_s:
            time.sleep(_LOOK_S)
        self._end_group()

    def _end_group(self) -> None:
        """SIGKILL to this process and all that it started: there is no supervisor any more who would."""
        if self.gone.is_set() and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)


class _Log(io.FileIO):
    """A file descriptor whose failures go to the lifeline, and never to whoever prints."""

    def __init__(self, fd: int, lifeline: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self._lifeline = socket.socket(fileno=os.dup(lifeline))

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except OSError:
            with contextlib.suppress(OSError):  # the supervisor is gone as well, or does not listen
                self._lifeline.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return memoryview(data).nbytes
