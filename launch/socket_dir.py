"""A folder of a run's own for its sockets on this machine, and the removal of those whose run is gone.

Every process that uses a folder holds a shared lock on the file ``held`` in it until it has ended, however it ends. So
a folder whose lock can be had alone is nobody's: whatever starts next removes it. (The folder's own lock is for those
who bind in it, common/unix_socket.py.)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from headrace.common import durable
from headrace.common.errors import UsageError

_PREFIX, _HELD = "headrace-", "held"


def socket_dir(run_id: str) -> Path:
    """Its place: short (socket addresses allow 107 bytes), and the same for every process of this user."""
    name = hashlib.sha256(f"{os.getuid()}-{run_id}".encode()).hexdigest()[:12]
    return _temp_dir() / f"{_PREFIX}{name}"


def used_socket_dir(run_id: str, *addresses: str) -> Path | None:
    """The folder of its own that a run's addresses are in, if they are: it may have begun under another TMPDIR."""
    for address in addresses:
        folder = Path(address.removeprefix("unix:").removeprefix("local://")).parent
        if folder.name == socket_dir(run_id).name:
            return folder
    return None


def hold_socket_dir(folder: Path) -> int:
    """Make the folder, which only this user can enter, and hold it until the descriptor returned is closed."""
    while True:
        try:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            fd = _open(folder)
        except FileNotFoundError:
            if folder.parent.is_dir():
                continue  # removed between the two
            raise UsageError(f"{folder.parent}: no such directory; set TMPDIR to one that is there") from None
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror}; set TMPDIR to a directory of yours") from error
        fcntl.flock(fd, fcntl.LOCK_SH)  # waits for one who is just removing it, which takes no time
        if durable.is_at(fd, folder / _HELD):
            return fd
        os.close(fd)


def release_socket_dir(folder: Path, fd: int) -> None:
    """Let go of the folder, and remove it if that was the last hold."""
    _remove_if_unused(folder, fd)
    os.close(fd)


@contextlib.contextmanager
def held_socket_dir(folder: Path | None) -> Iterator[None]:
    """Hold the folder, if there is one, while inside."""
    if folder is None:
        yield
        return
    fd = hold_socket_dir(folder)
    try:
        yield
    finally:
        release_socket_dir(folder, fd)


def remove_dead_socket_dirs() -> None:
    """Remove what runs of this user that were killed have left."""
    for folder in _temp_dir().glob(f"{_PREFIX}{'[0-9a-f]' * 12}"):
        with contextlib.suppress(OSError):  # gone, or another user's
            fd = _open(folder)
            _remove_if_unused(folder, fd)
            os.close(fd)


def _temp_dir() -> Path:
    """Not asked of tempfile, which tries it out with a file: who is killed at that moment leaves the file there."""
    return Path(os.environ.get("TMPDIR") or "/tmp").absolute()


def _remove_if_unused(folder: Path, fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if durable.is_at(fd, folder / _HELD):
            shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path) -> int:
    """The file in a folder of ours whose lock is the hold on it. Raises OSError, and leaves others' folders alone."""
    if os.stat(folder, follow_symlinks=False).st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to another user")
    return os.open(folder / _HELD, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
