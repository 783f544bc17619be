"""A training that Python code starts and watches: the processes of `headrace train`, and a thread that looks to them.

    train(): config checked, directory held -> thread: processes, rows -> evaluation, curve -> Run.wait(): Result
        what is wrong is raised there                   on_row(row)         and what ended it there

The processes end with the caller's, however that ends: in order where Python still runs (an exception, Ctrl-C, the end
of the script), by their lifelines (lifeline.py) where it does not.
"""

from __future__ import annotations

import atexit
import copy
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.launch import resume as resuming
from headrace.launch import train as training
from headrace.launch.begun import Begun, begin, go_on
from headrace.launch.evaluate import Evaluation
from headrace.launch.finish import finish
from headrace.launch.python_settings import flat, plain, python_path, refuse_session, words
from headrace.launch.run_files import ROWS
from headrace.launch.supervisor import ProcessDied
from headrace.observe.rows import Row, Tail, last_row
from headrace.observe.table import Display, Notes, open_display

_LOOK_S = 0.1
_log = logging.getLogger("headrace")


def train(
    what: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_row: Callable[[Row], object] | None = None,
    show: bool = False,
    episodes: int = 20,
) -> Run:
    """Start a training on this machine, as `headrace train` does, and return at once.

    ``what``: a preset, a TOML file, or what would stand in one, as a mapping; with ``resume`` the directory of the run
    to go on with. ``settings``: ``{"section.key": value}`` on top. Environments, wrappers, networks and algorithms of
    your own are named, "module:Class", or given as the classes. ``run_dir``: where everything is kept (default: the
    next of runs/). ``on_row`` is called with every new row of metrics.jsonl, in a thread of the run's; what it raises
    ends the run, and it may call :meth:`Run.stop`. ``show``: the table of `headrace train`. ``episodes``: greedy ones
    at the end (0: none).

    Raises :class:`UsageError` for whatever is wrong with that, in one line, before anything is written; so it does for
    a class that is defined in a notebook or a script itself, which other processes cannot import.
    """
    changed = flat(settings or {})
    source = plain(what, "settings")
    refuse_session(source)
    refuse_session(changed)
    if not resume:
        begun = begin(source, words(changed), None if run_dir is None else _place(run_dir), watched=False)
    elif run_dir is not None or not isinstance(source, str):
        raise UsageError(
            "train: with resume=True, what comes first is the directory of the run, and run_dir is left out"
        )
    else:
        begun = go_on(_place(source), words(changed), watched=False)
        if said := resuming.finished(begun.path, begun.config):
            begun.run_dir.close()
            raise UsageError(said)
    return Run(replace(begun, env={"PYTHONPATH": python_path()}), on_row, show, episodes)


def _place(path: str | os.PathLike[str]) -> Path:
    return Path(path).absolute()


@dataclass(frozen=True)
class Result:
    """What a run came to. ``finished``: False if it was stopped before its end; then there is no evaluation.
    ``train_s``: seconds of training, over all its lives. ``evaluation``: its ``mean``, ``interval`` and ``returns``."""

    path: Path
    finished: bool
    env_steps: int
    train_s: float
    evaluation: Evaluation | None


class Run:
    """Made by :func:`train`. ``path`` is its directory. In a ``with`` statement it is stopped at the end of it."""

    def __init__(self, begun: Begun, on_row: Callable[[Row], object] | None, show: bool, episodes: int) -> None:
        self.path = begun.path
        self._begun, self._episodes, self._on_row, self._show = begun, episodes, on_row, show
        self._before = Tail(self.path / ROWS)
        self._before.new_rows()  # of a run that goes on: whoever iterates does not get them again
        self._asked, self._trained, self._over = threading.Event(), threading.Event(), threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"headrace-{self.path.name}", daemon=True)
        atexit.register(self.stop)
        self._thread.start()

    def __repr__(self) -> str:
        state = "running" if self.running else "ended" if self._error is None else "failed"
        return f"<Run {self.path}: {self._begun.title}, {state}>"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it goes on: it trains, or is evaluated at its end."""
        return not self._over.is_set()

    def rows(self) -> Iterator[Row]:
        """The rows of metrics.jsonl, from the first one of this training and as they come (about one a second), until
        it ends. Every call begins at the first.

        Raises what ended the training, as :meth:`wait` does. KeyboardInterrupt while it waits stops the run."""
        tail = copy.deepcopy(self._before)
        while True:
            over = self._waited(self._trained, _LOOK_S)  # before the rows are read: then those were the last
            yield from tail.new_rows()
            if over:
                break
        self._raise()

    def wait(self, timeout_s: float | None = None) -> Result:
        """Wait for its end and return what it came to; ``timeout_s``: at most so long (TimeoutError; it goes on).

        Raises :class:`HeadraceError` where a process that must not die did (what it said last is in the error's notes),
        :class:`UsageError` where only a process found out that a setting is wrong, and what ``on_row`` raised.
        KeyboardInterrupt while it waits stops the run."""
        if not self._waited(self._over, timeout_s):
            raise TimeoutError(f"{self.path}: not at its end after {timeout_s} s")
        self._raise()
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """End it now: the learner writes a checkpoint, every process ends, and `headrace.train(run.path, resume=True)`
        goes on with it. Returns once that is done, from ``on_row`` at once; raises nothing."""
        self._asked.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _waited(self, event: threading.Event, timeout_s: float | None) -> bool:
        try:
            return event.wait(timeout_s)
        except KeyboardInterrupt:
            self.stop()
            raise

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # --- in the run's own thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            finished = training.train(self._begun, self._asked.is_set, self._display)
            self._trained.set()
            self._result = self._came_to(finished)
        except BaseException as error:  # whatever it is: the caller gets it
            if isinstance(error, ProcessDied):
                error.add_note(error.output)
            self._error = error
            _log.error("%s ended: %s: %s", self.path, type(error).__name__, error)
        finally:
            self._begun.run_dir.close()
            atexit.unregister(self.stop)
            self._trained.set()
            self._over.set()

    def _display(self) -> Display:
        shown = open_display(self._begun.title, sys.stdout) if self._show else None
        return _Rows(self._on_row, shown)

    def _came_to(self, finished: bool) -> Result:
        found = None
        if finished:
            say = print if self._show else _log.info
            found = finish(self._begun.config, self.path, self._episodes, gif=False, say=say)
        row = last_row(self.path / ROWS)
        env_steps, train_s = (row["env_steps"], row["time_s"]) if row is not None else (0, 0.0)
        return Result(self.path, finished, env_steps, train_s, found)


class _Rows:
    """A :class:`Display` that hands rows on: to the caller's function, and to another display if there is one."""

    def __init__(self, on_row: Callable[[Row], object] | None, shown: Display | None) -> None:
        self._on_row, self._shown = on_row, shown
        self._restarts = 0

    def show(self, rows: Sequence[Row], notes: Notes) -> None:
        if self._shown is not None:
            self._shown.show(rows, notes)
        else:
            self._tell(notes)
        if self._on_row is not None:
            on_row, self._on_row = self._on_row, None  # not called again if it raises
            for row in rows:
                on_row(row)
            self._on_row = on_row

    def _tell(self, notes: Notes) -> None:
        before, self._restarts = self._restarts, sum(notes.restarts.values())
        for message in notes.messages:
            _log.log(logging.WARNING if self._restarts > before else logging.INFO, "%s", message)

    def close(self) -> None:
        if self._shown is not None:
            self._shown.close()
