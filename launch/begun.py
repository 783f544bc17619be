"""Before the processes of a run are started: all is checked, its directory claimed, and only then something written.

preset, file or table, overrides -> begin  -> Begun -> train.py, and background.py from Python
a run's directory, overrides     -> go_on  -'
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.launch import init_from, memory, resume, run_files
from headrace.launch import run_dir as run_dirs
from headrace.launch.build import Blueprint, with_addresses
from headrace.launch.config import Config
from headrace.launch.device import check_device
from headrace.launch.load import load
from headrace.launch.roles import place
from headrace.launch.run_dir import RunDir
from headrace.launch.solved import stop_at
from headrace.observe import trackers


@dataclass(frozen=True)
class Begun:
    """A run whose directory is held and whose config was checked. ``resumed``: the learner's options where it goes on,
    empty for a fresh run; ``overrides``: what is set differently then (a new run has it in its config.toml); ``env``:
    variables for its processes."""

    config: Config
    run_dir: RunDir
    resumed: Sequence[str] = ()
    overrides: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.run_dir.path

    @property
    def title(self) -> str:
        return f"{self.config.algorithm_label} on {self.config.task.env}"

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        return shlex.join(["headrace", "train", "--resume", "--run-dir", str(self.path), *set_words(self.overrides)])


def set_words(overrides: Sequence[str]) -> list[str]:
    """As they are typed."""
    return [word for override in overrides for word in ("--set", override)]


def begin(
    source: str | Mapping[str, Any], overrides: Sequence[str], path: Path | None = None, watched: bool = True
) -> Begun:
    """A fresh run of a preset, a file or a table: its config in a directory of its own, ``path`` or the next of
    runs/. ``watched``: see :class:`Blueprint`. Raises :class:`UsageError`, and leaves nothing then."""
    config = with_addresses(load(source, overrides))
    runs = place("runs")
    blueprint = _checked(config, watched)
    init_from.check(blueprint)
    name = Path(source).stem if isinstance(source, str) else config.algorithm_label
    run_dir = run_dirs.claim(path) if path else run_dirs.claim_next(name, runs)
    try:
        (run_dir.path / "logs").mkdir(exist_ok=True)
        run_files.write(run_dir.path, blueprint)
    except BaseException as error:
        run_dir.abandon()
        run_dir.close()
        if isinstance(error, OSError):
            raise UsageError(f"run directory {run_dir.path}: {error.strerror}") from error
        raise
    return Begun(config, run_dir)


def go_on(path: Path, overrides: Sequence[str], new_log: bool = False, watched: bool = True) -> Begun:
    """A run that goes on. What is different is kept by its learner, once it does. Raises :class:`UsageError`."""
    before = run_files.stored_config(path)
    run_dir = run_dirs.claim_again(path)
    try:
        config = run_files.stored_config(path, overrides)
        resume.changes(before, config, new_log)
        _checked(config, watched)
        (run_dir.path / "logs").mkdir(exist_ok=True)
    except BaseException:
        run_dir.close()
        raise
    return Begun(config, run_dir, ["--resume", *(["--new-log"] if new_log else [])], overrides)


def _checked(config: Config, watched: bool) -> Blueprint:
    """All that can be known to be wrong beforehand is said now."""
    blueprint = Blueprint(config, watched)
    blueprint.check()
    check_device(config.learner)
    memory.check(config)
    stop_at(config)
    trackers.check(config.run.trackers)
    return blueprint
