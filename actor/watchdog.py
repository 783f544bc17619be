"""Ends the process when a call into an environment does not return: nothing else can, for nothing of ours is running.

worker's environments: Call(count, index) -> looked at now and then, in a thread -> unchanged too long: exit code 1
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread, main_thread

from headrace.tasks import EnvBatch

_LOOKS = 8
_LONGEST_PAUSE_S = 1.0
#: Times ``timeout_s`` after which a watchdog that cannot run itself is helped by the interpreter.
_BACKSTOP = 3


class Watchdog:
    """Watches the environments that ``batches()`` names at each look; ``timeout_s`` for one ``step()`` or ``reset()``.
    ``moved`` is called (in the watchdog's thread) whenever a look finds that they have been called since the last.

    A call into C that never lets go of the GIL stops this thread as well. For that case the interpreter's own
    watchdog is set anew at each look: it ends the process with a traceback after three times as long.
    """

    def __init__(
        self,
        batches: Callable[[], Sequence[EnvBatch]],
        timeout_s: float,
        moved: Callable[[], None] = lambda: None,
        who: str = "headrace actor",
    ) -> None:
        self._batches, self._timeout_s, self._moved, self._who = batches, timeout_s, moved, who
        self._pause_s = min(_LONGEST_PAUSE_S, timeout_s / _LOOKS)
        self._stopped = Event()
        self._set_backstop()
        self._thread = Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(10)

    def _run(self) -> None:
        seen: dict[int, tuple[int, int, float]] = {}  # batch -> call and for how long it has been under way
        looked_s = time.monotonic()
        while not self._stopped.wait(self._pause_s):
            self._set_backstop()
            now = time.monotonic()
            passed_s, looked_s = min(now - looked_s, 2 * self._pause_s), now  # a process that was frozen is no hang
            batches = self._batches()
            found = {id(batch): self._look(batch, seen.get(id(batch)), passed_s) for batch in batches}
            if any(found[key][:2] != seen.get(key, ())[:2] for key in found):
                self._moved()
            seen = found
        faulthandler.cancel_dump_traceback_later()

    def _set_backstop(self) -> None:
        # The descriptor of stderr: whoever put something else in its place (a notebook, a test) gave it none.
        faulthandler.dump_traceback_later(_BACKSTOP * self._timeout_s, exit=True, file=2)

    def _look(self, batch: EnvBatch, before: tuple[int, int, float] | None, passed_s: float) -> tuple[int, int, float]:
        call = (batch.call.count, batch.call.index)
        if before is None or before[:2] != call or call[1] < 0:
            return (*call, 0.0)
        under_way_s = before[2] + passed_s
        if under_way_s > self._timeout_s:
            self._end(f"environment {batch.env_id!r} number {call[1]} hangs: a call has not returned for "
                      f"{under_way_s:.1f} s{_where()} (actors.step_timeout_s = {self._timeout_s:g})")  # fmt: skip
        return (*call, under_way_s)

    def _end(self, line: str) -> None:
        print(f"{self._who}: {line}", file=sys.stderr, flush=True)
        os._exit(1)  # the main thread is inside the call: it cannot be asked to end


def _where() -> str:
    """The innermost Python line the main thread is in."""
    frame = sys._current_frames().get(main_thread().ident or 0)
    return "" if frame is None else f", in {Path(frame.f_code.co_filename).name} line {frame.f_lineno}"
