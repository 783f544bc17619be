"""Who may write a run directory: one run at a time, from before its first byte to the end of its last process.

    claim_next("cartpole-ppo")     runs/cartpole-ppo-N, the first N that nobody has
    claim(path)                    a directory that holds no run yet
    claim_again(path)              the directory of a run that goes on

Each gives a :class:`RunDir` that holds the directory's lock. The processes of the run inherit it, so that a run whose
`headrace train` was killed keeps its directory until the last of them has ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.common import durable
from headrace.common.errors import UsageError
from headrace.observe import endpoints
from headrace.observe.rows import last_row

if TYPE_CHECKING:
    from psutil import Process

_LOCK = "lock"
#: What makes a directory the directory of a run, or of the runs of several seeds.
_RUN = ("config.toml", "metrics.jsonl", "checkpoints", "seeds.json", "common.toml")
#: All that a run which never came to learn may have written.
_WRITTEN = (*_RUN, "plan.json", "history.jsonl", "logs", "tensorboard", "dead_letter", "snapshots",
            "evaluations.jsonl", "best", "videos", "trackers", "wandb", _LOCK)  # fmt: skip
#: Processes of a killed run end within seconds; the learner writes a checkpoint first.
_ENDING_S, _LOOK_S = 20.0, 0.1


@dataclass(frozen=True)
class RunDir:
    """``lock``: the descriptor to inherit. ``made``: directories that were not there before, outermost first. ``had``:
    what was in the directory before."""

    path: Path
    lock: int
    made: tuple[Path, ...]
    had: frozenset[str]

    def abandon(self) -> None:
        """A start that is refused leaves nothing behind, and takes away nothing that was there. Once something was
        learnt it was no such start: everything stays."""
        if self._learnt():
            return
        for name in _WRITTEN:
            if name not in self.had:
                _remove(self.path / name)
        endpoints.forget_dead(self.path)
        for directory in reversed(self.made):
            with contextlib.suppress(OSError):  # somebody else has put something there
                directory.rmdir()

    def close(self) -> None:
        os.close(self.lock)

    def _learnt(self) -> bool:
        row = last_row(self.path / "metrics.jsonl")
        kept = [path for path in self.path.glob("checkpoints/ckpt-*") if re.match("ckpt-0*[1-9]", path.name)]
        return bool(kept) or (row is not None and row["version"] > 0)


def claim_next(name: str, root: Path) -> RunDir:
    """The first of ``root``/``name``-1, -2, ... that nobody has. Making a directory is how one is had."""
    made = _make(root)
    number = 1
    while True:
        path = root / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise _unfit(path, error) from error
        else:
            return RunDir(path, _lock(path), (*made, path), frozenset())


def claim(path: Path) -> RunDir:
    """A directory that a person named, for a new run. Raises :class:`UsageError` when it cannot be had."""
    _refuse_a_run(path)
    claimed = claim_again(path)
    try:
        _refuse_a_run(path)  # one that was begun meanwhile
    except UsageError:
        claimed.close()
        raise
    return claimed


def claim_again(path: Path) -> RunDir:
    """A directory that may hold a run, to go on with. Raises :class:`UsageError` while a process of it is alive."""
    made = _make(path)
    had = frozenset(entry.name for entry in path.iterdir())
    return RunDir(path, _lock(path), made, had)


def holder(path: Path) -> Process | None:
    """The process that took the directory's lock and lives: the run's `headrace train`, or its learner where that runs
    alone. None where there is none on this machine (or it is another user's). A pid may have become somebody else's by
    now: it must have this very file open. Takes no lock, so that nobody who wants it is refused for looking."""
    try:
        pid = (path / _LOCK).read_bytes()[:20].strip()
    except OSError:
        return None
    if not pid.isdigit() or not endpoints.alive(int(pid)):
        return None
    import psutil

    lock = os.path.realpath(path / _LOCK)
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(int(pid))
        if any(opened.path == lock for opened in process.open_files()):
            return process
    return None


def _refuse_a_run(path: Path) -> None:
    if any(os.path.exists(path / name) for name in _RUN):
        raise UsageError(f"{path} already holds a run; go on with it by --resume, or name another directory")


def _make(path: Path) -> tuple[Path, ...]:
    """Make a directory and its parents; those that were missing, outermost first."""
    missing = [p for p in (path, *path.parents) if not os.path.exists(p)]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unfit(path, error) from error
    return tuple(reversed(missing))


def _lock(path: Path) -> int:
    """Hold the directory's lock. Waits a little for the processes of a run whose `train` was killed."""
    until_s = time.monotonic() + _ENDING_S
    while True:
        try:
            return durable.lock(path / _LOCK)
        except durable.Locked as locked:
            if endpoints.alive(locked.pid):
                raise
            if time.monotonic() > until_s:
                raise UsageError(
                    f"{path}: the process with pid {locked.pid} is gone, but one that it started still writes there; "
                    f"`fuser {path / _LOCK}` names it"
                ) from locked
            time.sleep(_LOOK_S)
        except OSError as error:
            raise _unfit(path, error) from error


def _unfit(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: {error.strerror}; name a run directory that can be written by --run-dir")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
