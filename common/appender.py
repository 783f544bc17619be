"""A file that grows by whole pieces, on a disk that is full or gone now and then.

A piece is written in full or taken back, so that nothing is ever glued to a torn one. What cannot be written waits in
memory, bounded, and is tried again with the next piece: what people look at must not end what they look at.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

#: Pieces waiting for a disk, in bytes; the oldest give way.
WAITING_BYTES = 1 << 20
_log = logging.getLogger("headrace.files")


def _all_of_it(path: Path) -> int:
    return path.stat().st_size


class Appender:
    """Appends to ``path``, of which it is the only writer; the file is made when the first piece comes.

    ``begin_at(path)``: how much of a file that is there already stays, in bytes (a predecessor may have torn its end).
    ``lost`` counts the pieces that were given up. Raises no OSError: it is logged, once for each time of trouble.
    """

    def __init__(self, path: Path, begin_at: Callable[[Path], int] = _all_of_it) -> None:
        self.path, self.lost = path, 0
        self._begin_at = begin_at
        self._fd, self._end = -1, 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._in_trouble = False

    def add(self, piece: bytes) -> None:
        """Write a piece, after those that wait; or let it wait with them."""
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)
        self.flush()
        while self._waiting_bytes > WAITING_BYTES and len(self._waiting) > 1:
            self._take()
            self.lost += 1

    def flush(self) -> bool:
        """Try what waits. Whether nothing waits any more."""
        late = len(self._waiting)
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._take()
        except OSError as error:
            if not self._in_trouble:
                _log.warning("%s: not written (%s); kept and tried again", self.path, error.strerror)
            self._in_trouble = True
            return False
        if self._in_trouble:
            _log.warning("%s: written again, %d late, %d lost", self.path, late, self.lost)
        self._in_trouble = False
        return True

    def close(self) -> None:
        """Try once more; what cannot be written now is lost, and said to be."""
        if not self.flush():
            self.lost += len(self._waiting)
            _log.warning("%s: the last %d were not written", self.path, len(self._waiting))
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self) -> None:
        self._waiting_bytes -= len(self._waiting.popleft())

    def _write(self, piece: bytes) -> None:
        """In full, or not at all (OSError)."""
        self._open()
        left, at = memoryview(piece), self._end
        try:
            while left:
                written = os.pwrite(self._fd, left, at)
                left, at = left[written:], at + written
        except OSError:
            with contextlib.suppress(OSError):  # the next piece is written over what stays
                os.ftruncate(self._fd, self._end)
            raise
        self._end = at

    def _open(self) -> None:
        """The file as it is now: one that was removed is begun anew where its directory is there."""
        if self._fd >= 0 and os.fstat(self._fd).st_nlink:
            return
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            end = self._begin_at(self.path)
            os.ftruncate(fd, end)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._end = fd, end
