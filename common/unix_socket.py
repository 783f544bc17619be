"""A place for a Unix socket: claimed without taking anything away from anybody."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from headrace.common.errors import UsageError

_MAX_ADDRESS_BYTES = 100  # sockaddr_un holds 107
_CLAIM_S = 5.0
_PROBE_S = 1.0


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


def listen(path: Path, kind: socket.SocketKind, where: str) -> socket.socket:
    """A listening socket at ``path``, for this user only; one left behind by a process that died is replaced.

    Raises :class:`UsageError`, beginning with ``where``, when it cannot be had.
    """
    with claimed(path, kind, where):
        listener = socket.socket(socket.AF_UNIX, kind)
        try:
            with address(path) as a:
                listener.bind(a)
            path.chmod(0o600)
            listener.listen(1024)
            listener.setblocking(False)
        except OSError as e:
            listener.close()
            raise UsageError(f"{where}: cannot listen there: {e}") from e
    return listener


@contextlib.contextmanager
def claimed(path: Path, kind: socket.SocketKind, where: str) -> Iterator[None]:
    """Inside, ``path`` is free to bind and nobody else claims it: a socket whose owner died was removed.

    Raises :class:`UsageError`, beginning with ``where``, for a socket that somebody answers on, for a file that is no
    socket, and for a folder that cannot be had.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise UsageError(f"{where}: cannot listen there: {e}") from e
    try:
        _lock(folder, where)
        _remove_dead(path, kind, where)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, where: str) -> None:
    """Two that start at once would both find the same dead socket, and the second would remove the first one's new."""
    until_s = time.monotonic() + _CLAIM_S
    while True:
        try:
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if time.monotonic() >= until_s:
                raise UsageError(f"{where}: cannot listen there: another process holds the folder's lock") from e
        time.sleep(0.02)


def _remove_dead(path: Path, kind: socket.SocketKind, where: str) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UsageError(f"{where}: cannot listen there: a file that is no socket has that name; it is left alone")
        with socket.socket(socket.AF_UNIX, kind) as probe, address(path) as a:
            probe.settimeout(_PROBE_S)
            probe.connect(a)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:  # the one answer that says that nobody is behind it
        path.unlink(missing_ok=True)
        return
    except OSError as e:  # busy, of another kind, another user's
        raise UsageError(f"{where}: cannot listen there: the socket is in use ({e.strerror or e})") from e
    raise UsageError(f"{where}: another process listens there; give each run its own address")
