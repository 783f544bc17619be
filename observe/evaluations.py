"""evaluations.jsonl: one JSON object a line, written by the evaluator after each evaluation of a version.

    {"version": 41, "env_steps": 83968, "time_s": 3.2, "mean": 211.4, "interval95": 12.1, "episodes": 20,
     "returns": [...], "learner_epoch": 1}

``mean`` and ``returns`` are undiscounted returns of greedy episodes on seeds nobody trains on, ``interval95`` half the
width of the mean's 95 % interval (null: not known). ``env_steps`` and ``time_s`` (the clock of metrics.jsonl) say when
the version was made, null where that is not known. ``solved``, where `run.stop_when_solved` asks: whether it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headrace.observe.rows import LineTail

FILE = "evaluations.jsonl"
_NUMBER, _MAYBE = (int, float), (int, float, type(None))
#: What a line must hold; a disk, or somebody's editor, may have been at it.
_KINDS: dict[str, Any] = {"version": int, "mean": _NUMBER, "interval95": _MAYBE, "episodes": int, "returns": list}


def with_interval(mean: float, interval95: float | None) -> str:
    """A mean return as people read it; of one episode there is no interval."""
    return f"{mean:.1f}" + ("" if interval95 is None else f" ± {interval95:.1f}")


class EvaluationsTail:
    """Reads a growing evaluations.jsonl."""

    def __init__(self, path: Path) -> None:
        self._lines = LineTail(path)

    def new(self) -> list[dict[str, Any]]:
        """Evaluations that came since the last call, oldest first; none while there is no file."""
        return [found for line in self._lines.new() if (found := _parse(line)) is not None]


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """All evaluations of the run as it stands, oldest first; none where there is no file. A learner that went back to a
    checkpoint makes versions again: what was evaluated beyond it is left out once a version of the new life is."""
    return _standing(EvaluationsTail(path).new())


def short(found: dict[str, Any]) -> dict[str, Any]:
    """The same without its single returns."""
    return {name: value for name, value in found.items() if name != "returns"}


def _standing(all_of_them: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for found in all_of_them:
        while kept and kept[-1]["version"] >= found["version"]:
            kept.pop()
        kept.append(found)
    return kept


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in _KINDS.items()):
        return None
    when = [found.get(name) for name in ("env_steps", "time_s")]
    return found if all(isinstance(value, _MAYBE) for value in when) else None
