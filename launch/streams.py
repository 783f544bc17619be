"""stdin, stdout and stderr that can be used, whatever the process was started with: by a terminal, cron, a service."""

from __future__ import annotations

import io
import os
import sys

_NAMES = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


def mend() -> None:
    """To be called before anything is opened.

    One that is closed becomes the null device: its number would go to the first file or socket that is opened, and
    what others say be written there. A character that its encoding lacks (a ± in ASCII) is escaped.
    """
    for number, (name, mode) in _NAMES.items():
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
