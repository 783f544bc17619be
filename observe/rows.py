"""metrics.jsonl: one JSON object a line, about one a second, and the whole memory of how a run went.

    learner -> MetricsLog.write(row) -> metrics.jsonl -> Tail.new_rows() -> table, board, plot, status

The learner may die in the middle of a line: a writer that goes on cuts the torn line off, and a reader takes whole
lines only. After a resume the counters go back to the checkpoint's, and the rows in between tell of what was undone:
``lineage`` drops them. Any reader can, for every row says which life of the learner wrote it and where that began: a
row counts unless a later ``learner_epoch`` has a ``resumed_at_steps`` below its ``env_steps``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from headrace.common.appender import Appender
from headrace.common.errors import UsageError

#: Bytes read at a time from the end of the file when only its last row is wanted; many times the longest row.
TAIL_BYTES = 1 << 16


class _Always(TypedDict):
    time_s: float
    version: int
    env_steps: int
    total_steps: int
    episodes: int
    return_mean: float | None
    length_mean: float | None
    steps_per_s: float
    staleness_mean: float
    staleness_max: int
    rejected: dict[str, int]
    phases: dict[str, float]
    train: dict[str, float | None]


#: What a line must hold to be a row; a disk, or somebody's editor, may have been at it.
_COUNTS = dict.fromkeys(("version", "env_steps", "total_steps", "episodes", "staleness_max"), int)
_MEASURES = dict.fromkeys(("time_s", "steps_per_s", "staleness_mean"), (int, float))
_MAYBE = dict.fromkeys(("return_mean", "length_mean"), (int, float, type(None)))
_KINDS: dict[str, Any] = {**_COUNTS, **_MEASURES, **_MAYBE, **dict.fromkeys(("rejected", "phases", "train"), dict)}


class Row(_Always, total=False):
    """One line of metrics.jsonl. Phases are shares of the learner's time since the row before, 0 to 1.

    ``time_s``: seconds of training so far, over all lives of the learner. ``return_mean`` (undiscounted) and
    ``length_mean`` (steps): of the last 100 finished training episodes, null before the first; ``return_std``, where it
    is given, their standard deviation. ``rejected``: fragments refused so far, by reason. ``train``: what the algorithm
    reported last. ``learner_epoch``: which life of the learner wrote it, from 1. ``resumed_at_steps``: what
    ``env_steps`` was in the checkpoint this life went on from, 0 for a fresh start. ``acting``: scalars of the acting
    half (epsilon); ``replay_fill``: how full the replay buffer is, 0 to 1, where there is one. ``evaluation``: the
    newest line of evaluations.jsonl (observe/evaluations.py) without its single returns, where there is one.
    """

    return_std: float | None
    learner_epoch: int
    resumed_at_steps: int
    acting: dict[str, float]
    replay_fill: float
    evaluation: dict[str, Any]


class MetricsLog:
    """Appends rows. One that cannot be written (disk full, directory gone) waits and is tried again with the next; a
    killed writer can tear the last row only, and its successor cuts that off."""

    def __init__(self, path: Path) -> None:
        self._file = Appender(path, _whole_bytes)

    @property
    def lost(self) -> int:
        """Rows given up: too many waited for the disk."""
        return self._file.lost

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one :class:`Row`. NaN and infinities become null: JSON has no word for them."""
        self._file.add(json.dumps(_finite(row), separators=(",", ":"), allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


class LineTail:
    """Reads a file that grows by lines. ``at_most_bytes``: read no more than so many at a time, which must be more than
    a line has."""

    def __init__(self, path: Path, at_most_bytes: int | None = None) -> None:
        self._path, self._at_most_bytes, self._offset = path, at_most_bytes, 0

    def new(self) -> list[bytes]:
        """Lines completed since the last call, oldest first; none while there is no file. A file that became shorter
        than what was read (a new run in the old place) is read from its start."""
        try:
            with open(self._path, "rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                text = file.read(-1 if self._at_most_bytes is None else self._at_most_bytes)
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        if not whole and len(text) == self._at_most_bytes:
            whole = text  # longer than any line
        self._offset += len(whole)
        return whole.splitlines()


class Tail:
    """Reads a growing metrics.jsonl. ``skipped`` counts whole lines that are not rows (a disk's doing, not ours).
    ``at_most_bytes``: see :class:`LineTail`."""

    def __init__(self, path: Path, at_most_bytes: int | None = None) -> None:
        self.path = path
        self.skipped = 0
        self._lines = LineTail(path, at_most_bytes)

    def new_rows(self) -> list[Row]:
        """Rows completed since the last call, oldest first; none while there is no file."""
        lines = self._lines.new()
        rows = [row for line in lines if (row := _parse(line)) is not None]
        self.skipped += len(lines) - len(rows)
        return rows


def lineage(rows: Iterable[Row]) -> list[Row]:
    """The rows of the run as it stands: a row takes back every earlier one that is further on than itself, and every
    one of an earlier life of the learner that is further on than where its own began."""
    kept: list[Row] = []
    for row in rows:
        take_back(kept, row)
        kept.append(row)
    return kept


def take_back(kept: list[Row], row: Row) -> None:
    """Drop from the end of ``kept`` what the next row takes back."""
    epoch, began = row.get("learner_epoch", 0), row.get("resumed_at_steps", row["env_steps"])
    while kept and kept[-1].get("learner_epoch", 0) < epoch and kept[-1]["env_steps"] > began:
        kept.pop()
    while kept and (kept[-1]["env_steps"], kept[-1]["time_s"]) >= (row["env_steps"], row["time_s"]):
        kept.pop()


def read_rows(path: Path) -> list[Row]:
    """All rows of the last lineage. Raises :class:`UsageError` where there is no such file."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; a run folder made by `headrace train` has one")
    return lineage(Tail(path).new_rows())


def last_row(path: Path) -> Row | None:
    """The newest complete row, read from the end of the file; None where there is none yet."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read()
    except FileNotFoundError:
        return None
    for line in reversed(text[: text.rfind(b"\n") + 1].splitlines()):
        if (row := _parse(line)) is not None:
            return row
    return None


def _parse(line: bytes) -> Row | None:
    try:
        row: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not all(isinstance(row.get(name), kind) for name, kind in _KINDS.items()):
        return None
    if not all(isinstance(share, int | float) for share in row["phases"].values()):
        return None
    return cast(Row, row)


def _whole_bytes(path: Path) -> int:
    """Length of the file up to and with its last newline."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - TAIL_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and value - value != 0:
        return None
    return value
