"""Processes that are watched: one that may die is started again with back-off, one that must not ends the run with its
own traceback. Knows nothing of reinforcement learning.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from headrace.common.errors import HeadraceError, UsageError
from headrace.common.metrics import Metrics

#: Exit code of bad usage: nothing would be better a second time.
USAGE_EXIT = 2
#: A process that lived so long starts with a clean record after its next death.
_FORGIVEN_AFTER_S = 30.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.25, 15.0
#: Deaths in a row, each before _FORGIVEN_AFTER_S, after which starting again is pointless.
_MAX_DEATHS = 8
_TRACEBACK_LINES = 30


class ProcessDied(HeadraceError):
    """A process that must not die did. ``output`` holds the end of what it printed."""

    def __init__(self, name: str, returncode: int, output: str) -> None:
        cause = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
        super().__init__(f"{name} died ({cause})")
        self.name, self.returncode, self.output = name, returncode, output


@dataclass
class Child:
    """One watched process. ``restart``: it may die and is started again."""

    name: str
    role: str
    argv: list[str]
    log: Path
    restart: bool
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    deaths: int = 0
    start_at_s: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                start_new_session=True,  # Ctrl-C reaches the supervisor only, which then ends them in order
            )
        self.started_s = time.monotonic()

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_TRACEBACK_LINES:])


class Supervisor:
    """Starts children, looks after them at every ``poll``, ends them in order."""

    def __init__(self, children: list[Child], metrics: Metrics) -> None:
        self.children, self._metrics = children, metrics
        self.restarts: dict[str, int] = {}
        self._messages: list[str] = []

    def start(self) -> None:
        for child in self.children:
            child.start()

    def poll(self) -> list[str]:
        """Look at every child once; names of those that ended well (exit code 0).

        Raises :class:`ProcessDied` for one that must not die or dies again and again, :class:`UsageError` (its own last
        line) for one that exits with code 2.
        """
        finished = []
        for child in self.children:
            if child.process is None:
                if time.monotonic() >= child.start_at_s:
                    child.start()
                continue
            code = child.process.poll()
            if code is None:
                continue
            if code == 0:
                finished.append(child.name)
            else:
                self._died(child, code)
        return finished

    def messages(self) -> list[str]:
        """What happened since the last call, for people."""
        told, self._messages = self._messages, []
        return told

    def _died(self, child: Child, code: int) -> None:
        if code == USAGE_EXIT:
            raise UsageError((child.tail().splitlines() or [f"{child.name} refused its configuration"])[-1])
        lived_s = time.monotonic() - child.started_s
        child.deaths = 1 if lived_s > _FORGIVEN_AFTER_S else child.deaths + 1
        if not child.restart or child.deaths >= _MAX_DEATHS:
            raise ProcessDied(child.name, code, child.tail())
        backoff_s = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (child.deaths - 1))
        child.process, child.start_at_s = None, time.monotonic() + backoff_s
        self.restarts[child.role] = self.restarts.get(child.role, 0) + 1
        self._messages.append(f"{ProcessDied(child.name, code, '')}; starting it again in {backoff_s:g} s")
        self._metrics.inc("restarts_total", role=child.role)

    def end(self, name: str, grace_s: float) -> None:
        """Stop one child that has work to save. Raises :class:`ProcessDied` when it did not come to a good end."""
        code = self.stop([name], grace_s).get(name, 0)
        if code not in (0, -signal.SIGTERM):  # by that signal itself: it had not begun
            raise ProcessDied(name, code, next(c for c in self.children if c.name == name).tail())

    def stop(self, names: list[str], grace_s: float) -> dict[str, int]:
        """SIGTERM the named children together, SIGKILL what is left after ``grace_s``; their exit codes."""
        running = {c.name: c.process for c in self.children if c.name in names and c.process is not None}
        for process in running.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + grace_s
        for process in running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return {name: int(process.returncode) for name, process in running.items()}
