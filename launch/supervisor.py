"""Looks after processes: one that may die is started again with back-off, one that must not ends the run with its own
traceback, and so does a role of which every process dies again and again. One that the run does not need ends nothing:
it is started again after longer and longer pauses. Knows nothing of reinforcement learning.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from headrace.common.errors import HeadraceError, UsageError
from headrace.common.metrics import Metrics
from headrace.launch.child import Child, stop_all

#: Exit code of bad usage: before the run first moves nothing would be better a second time.
USAGE_EXIT = 2
#: A process that lived so long is started again at once after its next death.
FORGIVEN_AFTER_S = 10.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.25, 15.0
#: Of what the run does not need: even the starts of one that dies at once are to cost next to nothing.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 15.0, 600.0
#: Deaths of each process of a role, since the run last moved, after which starting again is pointless.
_MAX_DEATHS = 5


class ProcessDied(HeadraceError):
    """The run cannot go on without a process that died. ``output`` holds the end of what it said."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


class Supervisor:
    """Starts children, looks after them at every ``poll``, ends them in order.

    Whether dying again and again is pointless depends on whether the run moves all the same, and only the caller knows
    that: it says so by :meth:`moved`. A run that has moved (``moved_before``: under an earlier supervisor) and then
    stands still gets ``patience_s`` besides, for what it lost may come back.
    """

    def __init__(
        self, children: list[Child], metrics: Metrics, *, moved_before: bool = False, patience_s: float = 0.0
    ) -> None:
        self.children, self._metrics, self._patience_s = children, metrics, patience_s
        self.restarts: dict[str, int] = {}
        #: Set once the run is coming to its end: then nobody is started again.
        self.finishing = False
        self._messages: list[str] = []
        self._moved = False
        self._moved_s = time.monotonic() if moved_before else None

    def start(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Start all of them, or as many as are started when ``stop()`` comes true."""
        for child in self.children:
            if stop():
                break
            child.start()

    def add(self, child: Child, after_s: float) -> None:
        """One more, to be started so many seconds from now."""
        child.start_at_s = time.monotonic() + after_s
        self.children.append(child)

    def moved(self) -> None:
        """The run has got on: what died before is forgiven, and bad usage is no longer an explanation."""
        self._moved, self._moved_s = True, time.monotonic()
        for child in self.children:
            child.deaths_unmoved = 0

    def poll(self) -> list[str]:
        """Look at every child once; names of those that ended and are not started again.

        Raises :class:`UsageError` (its own last line) for one that exits with code 2 before the run has ever moved, and
        :class:`ProcessDied` for one that must not die, or for the last of a role that has become hopeless.
        """
        ended = []
        for child in self.children:
            if child.process is None:
                if time.monotonic() >= child.start_at_s and not self.finishing:
                    self._start_again(child)
                continue
            code = child.ended()
            if code is None:
                continue
            good = self.finishing if child.restart else code == 0
            if good:
                ended.append(child.name)
            else:
                self._died(child, code)
        return ended

    def messages(self) -> list[str]:
        """What happened since the last call, for people."""
        told, self._messages = self._messages, []
        return told

    def _start_again(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:  # no process, or no descriptor, to be had
            if child.needed:
                raise
            self._pause(child, f"{child.name} cannot be started ({error.strerror})")

    def _pause(self, child: Child, told: str) -> None:
        """Start one that the run does not need again, later."""
        before = self.restarts.get(child.role, 0)
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(before, 10))
        child.process, child.start_at_s = None, time.monotonic() + pause_s
        self._again(child, told, pause_s)

    def _again(self, child: Child, told: str, after_s: float) -> None:
        self.restarts[child.role] = self.restarts.get(child.role, 0) + 1
        self._messages.append(f"{told}; starting it again in {after_s:g} s")
        self._metrics.inc("restarts_total", role=child.role)

    def _died(self, child: Child, code: int) -> None:
        reason = f": {child.last_line()}" if code > 0 and child.last_line() else ""
        if not child.needed:
            self._pause(child, f"{death(child, code)}{reason}")
            return
        # What may die may also have to wait for something (a broker) in a run that has moved under another supervisor.
        if code == USAGE_EXIT and not self._moved and not (child.restart and self._moved_s is not None):
            raise UsageError(child.last_line() or f"{child.name} refused its configuration")
        if not child.restart:
            raise ProcessDied(death(child, code), child.tail())
        child.deaths = 1 if child.lived_s > FORGIVEN_AFTER_S else child.deaths + 1
        child.deaths_unmoved += 1
        if self._hopeless(child.role):
            told = f"no {child.role} can go on: {death(child, code)}{reason}\n(all of it: {child.log})"
            raise ProcessDied(f"every {child.role} died {_MAX_DEATHS} times in a row", told)
        backoff_s = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (child.deaths - 1))
        child.process, child.start_at_s = None, time.monotonic() + backoff_s
        self._again(child, f"{death(child, code)}{reason}", backoff_s)

    def _hopeless(self, role: str) -> bool:
        """No process of the role helps the run on. One that does is enough: the others are tried again and again."""
        if self._moved_s is not None and time.monotonic() - self._moved_s < self._patience_s:
            return False
        return all(child.deaths_unmoved >= _MAX_DEATHS for child in self.children if child.role == role)

    def end(self, name: str, grace_s: float) -> None:
        """Stop one child that has work to save. Raises :class:`ProcessDied` when it did not come to a good end."""
        code = self.stop([name], grace_s).get(name, 0)
        if code not in (0, -signal.SIGTERM):  # by that signal itself: it had not begun
            child = next(c for c in self.children if c.name == name)
            raise ProcessDied(death(child, code), child.tail())

    def stop(self, names: list[str], grace_s: float) -> dict[str, int]:
        """SIGTERM the named children together, SIGKILL what is left after ``grace_s``; their exit codes."""
        named = [c for c in self.children if c.name in names and c.process is not None]
        stop_all(named, grace_s)
        return {child.name: child.ended() or 0 for child in named}

    def close(self) -> None:
        for child in self.children:
            child.close()


def death(child: Child, code: int) -> str:
    """How a child ended, for people."""
    if code == 0:
        return f"{child.name} ended though the run goes on (exit code 0)"
    return f"{child.name} died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
