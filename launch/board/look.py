"""What the board says of a run, read from its directory: a look at many of them is cheap, one at a few is closer.

    Looker(folder).glance() -> [Glance]        every run of the folder: its state and its newest row
    Looker(folder).look(name) -> Look          one run: its curve, evaluations, videos, the bottleneck in words

Files are read as far as they have grown, no more at a time than fits in memory whatever their size, and whatever is in
them: a line that is no row is passed over, a file that is missing says nothing.
"""

from __future__ import annotations

import contextlib
import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.launch.board.folder import Folder
from headrace.launch.result import SOLVED
from headrace.launch.run_dir import holder
from headrace.launch.run_files import CONFIG, RESULT, ROWS
from headrace.observe.curve import Curve
from headrace.observe.evaluations import FILE, read_evaluations
from headrace.observe.rows import Row, Tail, last_row
from headrace.observe.watch import Watch

#: States in which a process of the run is alive.
ALIVE = ("starting", "training", "evaluating")
_CHUNK_BYTES, _CATCH_UP_S = 1 << 20, 0.5
#: Rows that came this lately, of a run that no process here has: it trains on another machine, or as somebody else.
_FRESH_S = 5.0
#: A page that looks at a run does so every second.
_FORGOTTEN_AFTER_S = 30.0
_MOST_EVALUATIONS, _MOST_VIDEOS, _MAX_SMALL_BYTES, _LOG_BYTES = 500, 12, 1 << 20, 8 << 10


@dataclass(frozen=True)
class Glance:
    """``state``: starting, training, evaluating (its end), elsewhere (it trains, but not as a process here), finished,
    stopped, or empty (no row yet)."""

    name: str
    state: str
    pid: int
    row: Row | None


@dataclass(frozen=True)
class Look:
    """``evaluations``: greedy ones, oldest first, each with a mean at least. ``videos``: files within the directory,
    newest first. ``sentence``: the bottleneck in words, "" where none is known."""

    glance: Glance
    title: str
    rows: Sequence[Row]
    evaluations: Sequence[Mapping[str, Any]]
    threshold: float | None
    videos: Sequence[str]
    sentence: str


class Looker:
    """Not for several threads at a time."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._newest: dict[Path, tuple[tuple[int, int], Row | None]] = {}
        self._followed: dict[str, _Followed] = {}

    def glance(self) -> tuple[list[Glance], int]:
        """Every run, newest first, and how many more there are that are not shown."""
        names, more = self._folder.names()
        paths = {self._folder.root / name for name in names}
        self._newest = {path: known for path, known in self._newest.items() if path in paths}
        return [self._glance(name) for name in names], more

    def look(self, names: Sequence[str]) -> list[Look]:
        """Those of ``names`` that are there. What nobody asks for any more is forgotten."""
        now_s = time.monotonic()
        self._followed = {n: run for n, run in self._followed.items() if now_s - run.asked_s < _FORGOTTEN_AFTER_S}
        looks = []
        for name in names:
            try:
                path = self._folder.run(name)
            except UsageError:
                self._followed.pop(name, None)
                continue
            run = self._followed.setdefault(name, _Followed(path))
            looks.append(run.look(self._glance(name)))
        return looks

    def _glance(self, name: str) -> Glance:
        path = self._folder.root / name
        rows = path / ROWS
        stamp = _stamp(rows)
        known = self._newest.get(path)
        if known is None or known[0] != stamp:
            self._newest[path] = known = stamp, _last(rows)
        row, process = known[1], holder(path)
        done = row is not None and row["env_steps"] >= row["total_steps"]
        if process is not None:
            state = "evaluating" if done else "starting" if row is None else "training"
        elif row is None:
            state = "empty"
        elif done or _solved(path):
            state = "finished"
        else:
            state = "elsewhere" if time.time() - stamp[0] / 1e9 < _FRESH_S and not _ended(path) else "stopped"
        return Glance(name, state, 0 if process is None else process.pid, row)


def _last(rows: Path) -> Row | None:
    try:
        return last_row(rows)
    except OSError:  # somebody else's, or no file
        return None


def _stamp(file: Path) -> tuple[int, int]:
    """When it was written, in nanoseconds, and its size; zeros where it is not."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _ended(path: Path) -> bool:
    """Whether its roles took their leave, as at a clean end."""
    return not any((path / "endpoints").glob("*.json"))


def _solved(path: Path) -> bool:
    """Whether it ended before its steps were used up, because its task was solved (run.stop_when_solved)."""
    return _result(path).get("ended_by") == SOLVED


@dataclass
class _Followed:
    """A run that is looked at closely, again and again."""

    path: Path
    curve: Curve = field(default_factory=Curve)
    asked_s: float = 0.0

    def __post_init__(self) -> None:
        self._tail, self._watch = Tail(self.path / ROWS, _CHUNK_BYTES), Watch(self.path, every_s=3.0)
        self._title = ""
        self._threshold: float | None = None
        self._evaluations: list[dict[str, Any]] = []
        self._read: object = None

    def look(self, glance: Glance) -> Look:
        self.asked_s = time.monotonic()
        with contextlib.suppress(OSError):  # somebody else's, or no file
            self._catch_up(self.asked_s + _CATCH_UP_S)
        if not self._title:
            self._title, self._threshold = _what(self.path)
        sentence = self._watch.sentence() if glance.state in ALIVE else ""
        written = [_stamp(self.path / name) for name in (FILE, RESULT)]
        if written != self._read:
            self._read, self._evaluations = written, _evaluations(self.path)
        return Look(glance, self._title, self.curve.rows(), self._evaluations, self._threshold,
                    videos(self.path), sentence)  # fmt: skip

    def _catch_up(self, until_s: float) -> None:
        """With the rows there are, or as many as there is time for: the next look goes on from there."""
        while rows := self._tail.new_rows():
            self.curve.add(rows)
            if time.monotonic() > until_s:
                return


def _what(path: Path) -> tuple[str, float | None]:
    """Algorithm and environment in words, and the return at which it counts as solved, as far as they are known."""
    try:
        config = tomllib.loads(_small(path / CONFIG))
        algorithm, env = str(config["algorithm"]["name"]).rpartition(":")[2], str(config["task"]["env"])
    except (ValueError, KeyError, TypeError):
        return "", None
    solved = config["task"].get("solved")
    if solved is None and ":" not in env:  # somebody's own module is not imported only to look
        from headrace.tasks.gymnasium_env import reward_threshold

        try:
            solved = reward_threshold(env)
        except UsageError:
            solved = None
    return f"{algorithm.upper()} on {env}", solved if isinstance(solved, int | float) else None


def _evaluations(path: Path) -> list[dict[str, Any]]:
    """Those of its evaluator while it trained, and the one at its end."""
    found, end = read_evaluations(path / FILE)[-_MOST_EVALUATIONS:], _result(path)
    last = {**end["evaluation"], "time_s": end.get("train_s")} if isinstance(end.get("evaluation"), dict) else {}
    return [said for said in [*found, last] if isinstance(said.get("mean"), int | float)]


def _result(path: Path) -> dict[str, Any]:
    """What its result.json holds; nothing where that is not there, or damaged."""
    try:
        found = json.loads(_small(path / RESULT))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def videos(path: Path) -> list[str]:
    """Files within the run directory, newest first: those of training, and the one at the end."""
    found = [*path.glob("videos/*.gif"), *path.glob("videos/*.mp4"), *path.glob("final.gif")]
    dated = []
    for file in found:
        try:
            dated.append((file.stat().st_mtime, str(file.relative_to(path))))
        except OSError:
            continue
    return [name for _, name in sorted(dated, reverse=True)[:_MOST_VIDEOS]]


def settings(path: Path) -> str:
    """config.toml, as it stands."""
    return _small(path / CONFIG)


def logs(path: Path) -> list[str]:
    """Names of the run's logs, that of `headrace train` first where the board started it."""
    return sorted((log.name for log in (path / "logs").glob("*.log")), key=lambda name: (name != "train.log", name))


def end_of(log: Path) -> str:
    """What was said last."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_BYTES))
            return file.read(_LOG_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _small(path: Path) -> str:
    """A file that people could read; "" where there is none, or one that nobody could."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_SMALL_BYTES).decode(errors="replace")
    except OSError:
        return ""
