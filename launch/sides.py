"""What `headrace compare` reads of each thing it compares: a run, or several seeds of one (headrace train --seeds)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.launch.config import Config
from headrace.launch.load import presets
from headrace.launch.run_files import ROWS, stored_config
from headrace.launch.seeds_dir import is_seeds_dir, open_seeds, read_result
from headrace.observe import evaluations, plot
from headrace.observe.rows import Row, read_rows
from headrace.observe.statistics import estimate, iqm

#: Settings that differ between any two runs and say nothing of how they learn: names, seeds, places made up.
_OF_ONE_RUN = ("run.id", "run.seed")
_MADE_UP = {"transport.url": "local://", "weights.address": "unix:"}


@dataclass(frozen=True)
class Side:
    """``scores``: what its interval is over: the mean greedy returns of several seeds, or the episodes of one."""

    name: str
    path: Path
    config: Config
    runs: tuple[Path, ...]
    results: tuple[Mapping[str, Any], ...]

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        return [result["evaluation"] for result in self.results if result["evaluation"] is not None]

    @property
    def over(self) -> str:
        """What the scores are of: "seeds" or "episodes"."""
        return "seeds" if len(self.evaluations) > 1 else "episodes"

    @property
    def scores(self) -> list[float]:
        """Empty where no run was evaluated."""
        found = self.evaluations
        return [one["mean"] for one in found] if len(found) > 1 else [r for one in found for r in one["returns"]]


def read_sides(paths: Sequence[Path]) -> list[Side]:
    """Each of the directories. Raises :class:`UsageError` for what is none, what is named twice, and for runs whose
    returns have nothing in common."""
    names = _names([path.resolve() for path in paths])
    sides = [read_side(name, path) for name, path in zip(names, paths, strict=True)]
    first = sides[0]
    for side in sides[1:]:
        if side.config.task.env != first.config.task.env:
            raise UsageError(
                f"compare: {first.name} is of {first.config.task.env} and {side.name} of {side.config.task.env}: their "
                "returns have nothing in common"
            )
    return sides


def rows_of(run_dir: Path) -> list[Row]:
    """Its rows; none where it has not come so far."""
    return read_rows(run_dir / ROWS) if (run_dir / ROWS).is_file() else []


def drawn(side: Side) -> plot.Side:
    """As a picture shows it."""
    evaluated, mark = [evaluations.read_evaluations(run_dir / evaluations.FILE) for run_dir in side.runs], None
    if side.scores:
        found = estimate(iqm, side.scores)
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        mark = plot.Evaluation(max(result.get("env_steps", 0) for result in side.results), found.value, low, high)
    return plot.Side(side.name, [rows_of(run_dir) for run_dir in side.runs], evaluated, mark)


def differences(sides: Sequence[Side]) -> dict[str, list[Any]]:
    """Settings that are not the same on all sides: key -> its value on each, None where it is not set."""
    tables = [_comparable(side.config) for side in sides]
    keys = sorted({key for table in tables for key in table})
    values = {key: [table.get(key) for table in tables] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def read_side(name: str, path: Path) -> Side:
    """A run directory or one of seeds. Of seeds those count that came to their end, if any did."""
    if is_seeds_dir(path):
        there = open_seeds(path)
        config, runs = there.config(), there.finished_runs() or [there.run_dir(s) for s in there.seeds]
    elif str(path.name) in presets() and not path.exists():
        raise UsageError(
            f"compare: {path.name} is a preset; train it first, by `headrace train {path.name} --seeds 0:3`"
        )
    else:
        config, runs = stored_config(path), [path]
    return Side(name, path, config, tuple(runs), tuple(read_result(run) for run in runs))


def _comparable(config: Config) -> dict[str, Any]:
    table = {key: value for key, value in config.flat().items() if key not in _OF_ONE_RUN}
    for key, begins in _MADE_UP.items():
        if table[key] == "" or table[key].startswith(begins):
            table[key] = begins
    return table


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UsageError(f"compare: {twice} is named twice")
    return [next(end for end in _ends(path) if sum(end in _ends(p) for p in paths) == 1) for path in paths]


def _ends(path: Path) -> list[str]:
    """a/b/c: c, b/c, a/b/c. One seed of several is called by its directory as well."""
    last = len(path.parts) - (2 if is_seeds_dir(path.parent) else 1)
    return [str(Path(*path.parts[k:])) for k in range(last, -1, -1)]
