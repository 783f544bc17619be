"""Files that are whole or not there, whatever kills the process and whenever.

A rename within a directory is atomic, and durable once the directory is fsynced; so everything is written under a
temporary name first. ``FileSystem`` is the seam: ``os`` in life, something that dies at step k in a test.
"""

from __future__ import annotations

import fcntl
import logging
import os
import uuid
from pathlib import Path
from typing import Protocol

from headrace.common.errors import UsageError

_log = logging.getLogger("headrace.durable")


class FileSystem(Protocol):
    """The steps of which durable writing is made; the module ``os`` offers them."""

    def mkdir(self, path: str, mode: int = 0o777) -> None: ...
    def open(self, path: str, flags: int, mode: int = 0o777) -> int: ...
    def write(self, fd: int, data: memoryview, /) -> int: ...
    def fsync(self, fd: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def rename(self, src: str, dst: str) -> None: ...
    def link(self, src: str, dst: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...


def temporary(directory: Path) -> Path:
    """A name for something unfinished in ``directory``: whoever owns the directory removes ``tmp-*`` at its start."""
    return directory / f"tmp-{uuid.uuid4().hex}"


def write_file(path: Path, content: bytes, fs: FileSystem = os, mode: int = 0o644) -> None:
    """Write a new file and fsync it. Its name is durable only after :func:`fsync_directory`. Raises OSError."""
    fd = fs.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        left = memoryview(content)
        while left:
            left = left[fs.write(fd, left) :]
        fs.fsync(fd)
    finally:
        fs.close(fd)


def fsync_directory(path: Path, fs: FileSystem = os) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = fs.open(str(path), os.O_RDONLY)
    try:
        fs.fsync(fd)
    finally:
        fs.close(fd)


def replace_file(path: Path, content: bytes, fs: FileSystem = os, mode: int = 0o644) -> None:
    """Put a file in place of an old one, durably and all at once. Raises OSError; the old one is intact then."""
    tmp = temporary(path.parent)
    try:
        write_file(tmp, content, fs, mode)
        fs.rename(str(tmp), str(path))
        fsync_directory(path.parent, fs)
    except OSError:
        remove(tmp, fs)
        raise


def remove(path: Path, fs: FileSystem = os) -> None:
    """Remove a file, or a directory of files, if it is there. What cannot be removed is logged and stays."""
    try:
        if path.is_dir():
            for inner in path.iterdir():
                fs.unlink(str(inner))
            fs.rmdir(str(path))
        elif path.exists():
            fs.unlink(str(path))
    except OSError as error:
        _log.warning("%s not removed: %s", path, error.strerror)


def is_at(fd: int, path: Path) -> bool:
    """Whether what ``fd`` has open still stands at ``path``."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


class Locked(UsageError):
    """Another process holds a lock; ``pid`` is the one that took it (0: not known), which may be gone by now."""

    def __init__(self, path: Path, pid: int) -> None:
        who = f"the process with pid {pid}" if pid else "another process"
        super().__init__(f"{path.parent} is being written by {who}: stop it first")
        self.pid = pid


def lock(path: Path) -> int:
    """Hold ``path`` (flock) until the descriptor returned is closed or the process is gone, however it went.

    Raises :class:`Locked` naming the holder's pid. A child that inherits the descriptor shares the lock.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(fd, 20, 0).decode(errors="replace").strip()
            os.close(fd)
            raise Locked(path, int(pid) if pid.isdecimal() else 0) from error
        if is_at(fd, path):
            break
        os.close(fd)  # its holder removed it while we opened it: a lock that nobody else would meet
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
