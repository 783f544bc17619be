"""``--log-format json``: whatever a role says, one JSON object a line, for who collects the logs of many containers.

    {"time": "2026-11-26T10:00:00.123Z", "level": "warning", "role": "actor", "message": "..."}

Printed lines are level info (stdout) or warning (stderr); those of Python's logging keep their level and name their
``logger``; an exception that ends the process or a thread is one object with its ``traceback``. Only what the
interpreter itself writes while it crashes (faulthandler) stays text.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

_LIBRARY_LEVEL = logging.WARNING


def begin(role: str, out: TextIO | None = None) -> None:
    """From now on this process speaks JSON, on ``out`` (default: its stdout)."""
    write = _writer(role, out or sys.stdout)
    sys.stdout, sys.stderr = _Lines("info", write, sys.stdout), _Lines("warning", write, sys.stderr)
    logging.basicConfig(level=_LIBRARY_LEVEL, handlers=[_Records(write)], force=True)

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            told = "".join(traceback.format_exception(kind, error, trace))
            write(level="critical", message=f"{kind.__name__}: {error}", traceback=told)

    sys.excepthook = uncaught
    threading.excepthook = lambda args: uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _writer(role: str, out: TextIO) -> Callable[..., None]:
    lock = threading.Lock()

    def write(*, level: str, message: str, **more: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said = json.dumps({"time": now, "level": level, "role": role, "message": message, **more})
        with lock:
            out.write(said + "\n")
            out.flush()

    return write


class _Lines(io.TextIOBase):
    """A text stream whose whole lines become objects; what is unfinished waits for its end. ``under``: the one in whose
    place it stands, whose descriptor faulthandler writes to."""

    def __init__(self, level: str, write: Callable[..., None], under: TextIO) -> None:
        self._level, self._write, self._under = level, write, under
        self._lock, self._begun = threading.Lock(), ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._under.fileno()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                self._write(level=self._level, message=line)
        return len(text)


class _Records(logging.Handler):
    def __init__(self, write: Callable[..., None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        more: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            more["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        self._write(level=record.levelname.lower(), message=record.getMessage(), **more)
