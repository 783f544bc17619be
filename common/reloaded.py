"""What is made of files that are replaced while a process runs: tokens, passwords, certificates.

tokens = Reloaded((path,), lambda: read_tokens(path, "weights.token_file"))
tokens.now()      of the files as they are
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from headrace.common.errors import UsageError

Made = TypeVar("Made")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Reloaded(Generic[Made]):
    """``make`` is called now, and by :meth:`now` once one of ``files`` has changed. It raises :class:`UsageError` where
    they will not do: now to the caller, later for ``say`` to tell once, and what was made before goes on being used."""

    def __init__(
        self, files: Sequence[Path], make: Callable[[], Made], say: Callable[[str], None] | None = None
    ) -> None:
        self._files, self._make, self._say = tuple(files), make, say or _print
        self._lock = threading.Lock()
        self._seen = self._state()
        self._made = make()

    def now(self) -> Made:
        """What the files make; the same object until they change. Any thread may ask; it costs a stat each."""
        with self._lock:
            state = self._state()
            if state != self._seen:
                self._seen = state  # before they are read: what changes meanwhile is read again
                try:
                    self._made = self._make()
                except UsageError as error:
                    self._say(f"{error}; what was read before stays in use")
            return self._made

    def _state(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(_stat, self._files))


def _stat(path: Path) -> tuple[int, ...]:
    """Tells a replaced file from what it was, also where links to a folder were changed (Kubernetes' secrets)."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
