"""A record as a memory file of its own, and the two kinds of packet that local:// exchanges about it.

A memory file (memfd_create(2), Linux) lives as long as somebody holds its descriptor, counts against no /dev/shm, and
once sealed can be neither written nor resized by anybody: what was checked is what is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from headrace.common.codec import Buffer
from headrace.common.errors import Rejected, UsageError

RECORD = struct.Struct("<Q")  # producer -> learner: bytes of the record; its descriptor is attached
TAKEN = struct.Struct("<d")  # learner -> producer: when the oldest record under way was taken (monotonic clock)
BYE = b"bye"  # learner -> producer: closed for good

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_MAX_VECTORS = 512  # half of what writev(2) takes
_MAX_ADDRESS_BYTES = 100  # sockaddr_un holds 107


def write_sealed(parts: Sequence[Buffer]) -> tuple[int, int]:
    """The descriptor of a new sealed memory file that holds ``parts``, and its length. The caller closes it."""
    fd = os.memfd_create("headrace-record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = [memoryview(p).cast("B") for p in parts if len(p)]
        while left:
            written = os.writev(fd, left[:_MAX_VECTORS])
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        return fd, os.fstat(fd).st_size
    except BaseException:
        os.close(fd)
        raise


def map_sealed(fd: int, nbytes: int, cap_bytes: int) -> memoryview:
    """The bytes of a sealed memory file, not copied; they stay while anything refers to them.

    Raises :class:`Rejected` when the file is not sealed (it could still change), not ``nbytes`` long, or over the cap.
    """
    if nbytes > cap_bytes:
        raise Rejected("size", f"record of {nbytes} bytes is over the cap of {cap_bytes} bytes")
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as e:
        raise Rejected("malformed", f"the descriptor received is no memory file: {e}") from e
    if seals & SEALS != SEALS:
        raise Rejected("malformed", "the memory file received is not sealed")
    size = os.fstat(fd).st_size
    if size != nbytes or nbytes == 0:
        raise Rejected("malformed", f"the memory file received has {size} bytes, {nbytes} were announced")
    return memoryview(mmap.mmap(fd, nbytes, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ))


def socket_path(url: str) -> Path:
    """The path in local:///path. Raises :class:`UsageError` for anything else."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/") or parts.query or parts.fragment:
        raise UsageError(f"carrier {url!r}: not an absolute path of a socket; use local:///path/to/socket")
    if not hasattr(os, "memfd_create") or not hasattr(socket, "SOCK_SEQPACKET"):
        raise UsageError(f"carrier {url!r}: local:// needs Linux; use kafka://host:port/topic")
    return Path(parts.path)


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """What to bind or connect to for a socket at ``path``: the kernel takes 107 bytes, a run directory more."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
