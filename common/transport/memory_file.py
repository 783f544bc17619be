"""A record in a memory file, and the two kinds of packet that local:// exchanges about it.

A memory file (memfd_create(2), Linux) lives as long as somebody holds its descriptor and needs no room in /dev/shm. The
reader copies out of it: nobody can change, or cut short, what has been checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from headrace.common.buffers import Buffers
from headrace.common.codec import Buffer
from headrace.common.errors import Rejected, UsageError

RECORD = struct.Struct("<Q")  # producer -> learner: bytes of the record; the descriptor of its file is attached
TAKEN = struct.Struct("<d")  # learner -> producer: when the oldest record under way was taken (monotonic clock)
BYE = b"bye"  # learner -> producer: closed for good

_MAX_VECTORS = 512  # half of what pwritev(2) takes


class Files:
    """Memory files that are used again: their pages are there already, which is most of the cost of a new one."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._spare: list[int] = []

    def store(self, parts: Sequence[Buffer]) -> int:
        """The descriptor of a file that begins with ``parts``. Whoever has done with it gives it back."""
        fd = self._spare.pop() if self._spare else os.memfd_create("headrace-record", os.MFD_CLOEXEC)
        try:
            _write(fd, parts)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def give_back(self, fd: int) -> None:
        if len(self._spare) < self._keep:
            self._spare.append(fd)
        else:
            os.close(fd)

    def close(self) -> None:
        while self._spare:
            os.close(self._spare.pop())


def _write(fd: int, parts: Sequence[Buffer]) -> None:
    left = [memoryview(p).cast("B") for p in parts if len(p)]
    total = 0
    while left:
        written = os.pwritev(fd, left[:_MAX_VECTORS], total)
        total += written
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def is_memory_file(fd: int) -> bool:
    """Whether reading ``fd`` can wait for nobody. Only memory files know of seals, and the kernel answers by
    itself, where even a file's size may have to be fetched (FUSE, a network)."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


def read(fd: int, nbytes: int, cap_bytes: int, buffers: Buffers) -> memoryview:
    """A private copy, in ``buffers``, of the first ``nbytes`` of a memory file that somebody else wrote.

    Raises :class:`Rejected` when they are over the cap, the file is shorter, or the descriptor is of no memory file.
    """
    if not is_memory_file(fd):
        raise Rejected("malformed", "the descriptor received is of no memory file (memfd_create, or of /dev/shm)")
    if nbytes > cap_bytes:
        raise Rejected("size", f"record of {nbytes} bytes is over the cap of {cap_bytes} bytes")
    copy = buffers.take(nbytes)
    try:
        got = os.preadv(fd, [copy], 0)
    except OSError as e:
        raise Rejected("malformed", f"the descriptor received cannot be read: {e}") from e
    if got != nbytes or not got:
        raise Rejected("malformed", f"the memory file received held {got} bytes, {nbytes} were announced")
    return copy


def beginning(fd: int, nbytes: int) -> bytes:
    """What a memory file begins with, at most ``nbytes``; nothing of any other file."""
    with contextlib.suppress(OSError):
        if is_memory_file(fd):
            return os.pread(fd, nbytes, 0)
    return b""


def socket_path(url: str) -> Path:
    """The path in local:///path. Raises :class:`UsageError` for anything else."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/") or parts.query or parts.fragment:
        raise UsageError(f"carrier {url!r}: not an absolute path of a socket; use local:///path/to/socket")
    if not hasattr(os, "memfd_create") or not hasattr(socket, "SOCK_SEQPACKET"):
        raise UsageError(f"carrier {url!r}: local:// needs Linux; use kafka://host:port/topic")
    return Path(parts.path)
