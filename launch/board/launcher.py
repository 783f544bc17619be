"""Start, stop and resume runs of this machine, as a person would on the command line.

A start is `headrace train` in a session of its own: it goes on when the board ends, its words go to RUN/logs/train.log,
and a stop is the SIGTERM to which it answers with a checkpoint, whoever had started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.launch import run_dir as run_dirs
from headrace.launch.begun import set_words
from headrace.launch.board.folder import Folder
from headrace.launch.board.look import end_of
from headrace.launch.load import load, presets
from headrace.launch.run_files import CONFIG, stored_config

LOG = "train.log"
#: Exit code of a start that was refused: nothing was learnt.
_REFUSED = 2


@dataclass(frozen=True)
class _Started:
    path: Path
    process: subprocess.Popen[bytes]
    #: Where in its log the words of this start begin.
    said_from: int
    fresh: bool


class Launcher:
    """All methods return at once, or after reading a config; each raises :class:`UsageError` with a line to show."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._started: dict[str, _Started] = {}

    def start(self, preset: str, settings: Sequence[str]) -> str:
        """A new run of a shipped preset, ``settings`` as ``section.key=value``; returns its name."""
        if preset not in presets():
            raise UsageError(f"{preset!r} is no preset")
        load(preset, settings)
        claimed = run_dirs.claim_next(preset, self._folder.root)
        claimed.close()  # the directory is there: nobody else will be given it, and `headrace train` locks it anew
        name = claimed.path.name
        self._train(name, [preset, *set_words(settings)], fresh=True)
        return name

    def resume(self, name: str, settings: Sequence[str] = ()) -> None:
        """Let a run go on."""
        path = self._folder.run(name)
        if (process := run_dirs.holder(path)) is not None:
            raise UsageError(f"{name} is running already, as process {process.pid}")
        stored_config(path, settings)
        self._train(name, ["--resume", *set_words(settings)], fresh=False)

    def stop(self, name: str) -> int:
        """Ask the run to write a checkpoint and to end; returns whom (its pid)."""
        path = self._folder.run(name)
        process = run_dirs.holder(path)
        if process is None and self.runs(name):  # it has not come to its lock yet
            self._started[name].process.terminate()
            return self._started[name].process.pid
        if process is None:
            raise UsageError(f"{name}: no process of this machine (and of yours) is training it")
        pid = int(process.pid)
        process.terminate()  # (looks again whether the pid is still that process's)
        return pid

    def runs(self, name: str) -> bool:
        """Whether what was started here of that name is alive."""
        return name in self._started and self._started[name].process.poll() is None

    def failures(self) -> list[str]:
        """A line for each run started here that came to no good end since the last call. What was refused, or stopped
        before it had begun, leaves no directory behind."""
        told = []
        for name, started in list(self._started.items()):
            code = started.process.poll()
            if code is None:
                continue
            del self._started[name]
            if code not in (0, -signal.SIGTERM):  # by that signal itself: stopped before it had begun
                told.append(f"{name}: {_last_line(started) or f'ended with exit code {code}'}")
            if code in (_REFUSED, -signal.SIGTERM) and started.fresh:
                _discard(started.path)
        return told

    def _train(self, name: str, words: Sequence[str], fresh: bool) -> None:
        path = self._folder.root / name
        try:
            (path / "logs").mkdir(exist_ok=True)
            with open(path / "logs" / LOG, "ab") as log:
                said_from = log.tell()
                process = subprocess.Popen(
                    [sys.executable, "-m", "headrace.launch.cli", "train", *words, "--run-dir", str(path)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        self._started[name] = _Started(path, process, said_from, fresh)


def _last_line(started: _Started) -> str:
    with contextlib.suppress(OSError):
        log = started.path / "logs" / LOG
        if log.stat().st_size > started.said_from:
            return next((line for line in reversed(end_of(log).splitlines()) if line.strip()), "")
    return ""


def _discard(path: Path) -> None:
    """Take away what a refused start left: only what is ours, so never a run."""
    if (path / CONFIG).exists():
        return
    for file in (path / "logs" / LOG, path / "lock"):
        with contextlib.suppress(OSError):
            os.unlink(file)
    for directory in (path / "logs", path):
        with contextlib.suppress(OSError):
            directory.rmdir()
