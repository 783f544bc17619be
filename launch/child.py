"""One watched process: how it is started, what it said, and its end, which takes along whatever it had started."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from headrace.launch.lifeline import Lifeline

_TAIL_LINES, _TAIL_BYTES = 30, 16 << 10
_LOOK_S = 0.02
#: Takes nothing: what a process says then comes over its lifeline.
_NO_LOG = "/dev/full"


@dataclass
class Child:
    """``restart``: it may die and is started again. ``needed``: the run cannot go on without it; else no death of it,
    however often, ends the run. Its command line gets ``--supervised FD`` (its lifeline) at the end; it inherits the
    descriptors in ``inherit``."""

    name: str
    role: str
    argv: list[str]
    log: Path
    restart: bool
    env: dict[str, str] = field(default_factory=dict)
    inherit: tuple[int, ...] = ()
    needed: bool = True
    process: subprocess.Popen[bytes] | None = None
    start_at_s: float = 0.0
    #: In a row, each after a short life: the pause before the next start follows it.
    deaths: int = 0
    #: Since the run last moved, however long the lives were: the supervisor gives up by it.
    deaths_unmoved: int = 0
    _started_s: float = 0.0
    _lifeline: Lifeline | None = None
    _file: IO[bytes] | None = None
    _said_from: int = 0

    def start(self) -> None:
        self.close()
        self._lifeline, self._file = Lifeline(), _open_log(self.log)
        self._said_from = self._file.seek(0, os.SEEK_END)
        try:
            self.process = subprocess.Popen(
                [*self.argv, "--supervised", str(self._lifeline.fd)],
                stdin=subprocess.DEVNULL,
                stdout=self._file,
                stderr=self._file,
                env={**os.environ, **self.env},
                pass_fds=(self._lifeline.fd, *self.inherit),
                start_new_session=True,  # Ctrl-C reaches the supervisor only, which then ends them in order
            )
        finally:
            self._lifeline.handed_over()
        self._started_s = time.monotonic()

    @property
    def lived_s(self) -> float:
        return time.monotonic() - self._started_s

    def ended(self) -> int | None:
        """Its exit code, None while it runs. What it had started ends with it."""
        assert self.process is not None
        if self._lifeline is not None:
            self._lifeline.words()  # so that it can say more
        if self.process.returncode is None:
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self._kill_group()  # while its number is still its own
        return self.process.wait()

    def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self._kill_group()
        self.process.wait()

    def close(self) -> None:
        """Let go of its log and its lifeline."""
        if self._lifeline is not None:
            self._lifeline.close()
        if self._file is not None:
            self._file.close()

    def tail(self) -> str:
        """The end of what it said in this life: to its log, and over its lifeline when the log took no more."""
        if self._lifeline is None:
            return ""
        said = (self._logged() + self._lifeline.words()).decode(errors="replace")
        return "\n".join(said.rstrip().splitlines()[-_TAIL_LINES:])

    def last_line(self) -> str:
        return (self.tail().splitlines() or [""])[-1].strip()

    def _logged(self) -> bytes:
        """Read by the descriptor: the folder that the log stood in may be gone."""
        assert self._file is not None
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            return b""
        self._file.seek(max(self._said_from, self._file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return self._file.read(_TAIL_BYTES)

    def _kill_group(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def stop_all(children: Iterable[Child], grace_s: float) -> None:
    """SIGTERM them together, SIGKILL what is left after ``grace_s``."""
    started = [child for child in children if child.process is not None]
    for child in started:
        if child.process is not None and child.ended() is None:
            child.process.terminate()
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(child.ended() is None for child in started):
        time.sleep(_LOOK_S)
    for child in started:
        child.kill()


def _open_log(path: Path) -> IO[bytes]:
    try:
        return path.open("a+b", buffering=0)
    except OSError:  # a full disk, a folder that is gone
        return open(_NO_LOG, "a+b", buffering=0)
