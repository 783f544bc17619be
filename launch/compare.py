"""headrace compare RUN RUN ...: what differs in the settings of trainings that are there, and what it came to.

    headrace train lunarlander-ppo --seeds 0:3 --run-dir runs/own
    headrace train lunarlander-shaped --seeds 0:3 --run-dir runs/shaped
    headrace compare runs/own runs/shaped

A RUN is a run directory or one of several seeds. Curves over steps and over time go to one picture, the first agents
beside each other to one GIF; greedy evaluations are told as interquartile means with their bootstrap intervals
(observe/statistics.py), and by how much each differs from the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.common import durable
from headrace.common.errors import UsageError
from headrace.launch.roles import place
from headrace.launch.settings import as_toml
from headrace.launch.sides import Side, differences, drawn, read_sides, rows_of
from headrace.launch.solved import solved_at
from headrace.observe import gifs, plot
from headrace.observe.statistics import CONFIDENCE, estimate, iqm, iqm_difference

TABLE, PICTURE, FILM = "compare.json", "compare.png", "compare.gif"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directories of runs, or of several seeds")
    parser.add_argument("--dir", type=place, metavar="D", help="where the pictures go (default: runs/compare-N)")
    parser.add_argument("--json", action="store_true", help="print what compare.json holds")


def run(args: argparse.Namespace) -> int:
    if len(args.runs) < 2:
        raise UsageError("compare: give two directories or more; `headrace train PRESET --seeds 0:3` makes one")
    sides = read_sides(args.runs)
    found = examine(sides)
    folder = _folder(args.dir)
    try:
        durable.replace_file(folder / TABLE, (json.dumps(found, indent=2) + "\n").encode())
        _draw(sides, folder)
        _film(sides, folder)
    except OSError as error:
        print(f"{folder}: not everything could be written: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(found))
        return 0
    _print_tables(sides, found)
    print("\n".join(f"{what}: {folder / name}" for what, name in (("curves", PICTURE), ("agents", FILM))
                    if (folder / name).exists()))  # fmt: skip
    return 0


def examine(sides: Sequence[Side]) -> dict[str, Any]:
    """All that is said of them, ready for JSON."""
    first = sides[0]
    return {
        "env": first.config.task.env,
        "settings": {key: dict(zip(_names(sides), values, strict=True)) for key, values in differences(sides).items()},
        "sides": {side.name: _told(side) for side in sides},
        "difference": {
            side.name: estimate(iqm_difference, first.scores, side.scores).to_json()
            for side in sides[1:]
            if first.scores and side.scores
        },
    }


def _told(side: Side) -> dict[str, Any]:
    """``over``: what the interval is over. That of one seed's episodes says nothing of how another seed would do."""
    last = [rows[-1] for run_dir in side.runs if (rows := rows_of(run_dir))]
    told: dict[str, Any] = {
        "runs": [str(run_dir) for run_dir in side.runs],
        "env_steps": [row["env_steps"] for row in last],
        "train_s": [row["time_s"] for row in last],
    }
    if not side.scores:
        return told | {"evaluation": None}
    found = estimate(iqm, side.scores).to_json()
    means, returns = [e["mean"] for e in side.evaluations], [r for e in side.evaluations for r in e["returns"]]
    about = {"over": side.over, "n": len(side.scores), "mean": sum(means) / len(means), "lowest_episode": min(returns)}
    return told | {"evaluation": {**found, **about, "means": means}}


def _names(sides: Sequence[Side]) -> list[str]:
    return [side.name for side in sides]


# --- what is left to look at -----------------------------------------------------------------------------------------


def _folder(asked: Path | None) -> Path:
    """The one named, or the first of runs/compare-1, -2, ... that is not there."""
    try:
        if asked is not None:
            asked.mkdir(parents=True, exist_ok=True)
            return asked
        number = 1
        while True:
            folder = place("runs") / f"compare-{number}"
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UsageError(f"--dir {error.filename}: {error.strerror}; name a directory that can be written") from error


def _draw(sides: Sequence[Side], folder: Path) -> None:
    shown = [drawn(side) for side in sides]
    config = sides[0].config
    title = f"{config.task.env}, the environment's own return"
    plot.plot_sides(shown, folder / PICTURE, title=title, over=("env_steps", "time_s"), threshold=solved_at(config))


def _film(sides: Sequence[Side], folder: Path) -> None:
    """The agents of the first run of each that has a GIF; nothing where a side has none."""
    films = [next((film for run_dir in side.runs if (film := run_dir / "final.gif").exists()), None) for side in sides]
    there = [film for film in films if film is not None]
    if len(there) == len(sides):
        gifs.side_by_side(there, folder / FILM)


def _print_tables(sides: Sequence[Side], found: dict[str, Any]) -> None:
    """A column a side: settings that differ, then what was measured."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(no_wrap=True)
    for name in _names(sides):
        table.add_column(name, overflow="fold")
    for key, values in found["settings"].items():
        if _of_both(key, sides, values):
            table.add_row(key, *map(as_toml, values.values()))
    for label, cells in _measured(sides, found):
        table.add_row(label, *cells, style="bold" if label == "greedy" else "")
    Console(highlight=False, markup=False).print(table)


def _of_both(key: str, sides: Sequence[Side], values: Mapping[str, Any]) -> bool:
    """Not what one algorithm has and another knows nothing of."""
    one_algorithm = len({side.config.algorithm["name"] for side in sides}) == 1
    return one_algorithm or not key.startswith("algorithm.") or None not in values.values()


def _measured(sides: Sequence[Side], found: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    told = [found["sides"][side.name] for side in sides]
    yield "steps", [_range(one["env_steps"], "{:,.0f}") for one in told]
    yield "seconds", [_range(one["train_s"], "{:,.1f}") for one in told]
    yield "greedy", ["not evaluated" if (e := one["evaluation"]) is None else _interval(e) for one in told]
    yield f"  ({CONFIDENCE:.0%} over)", ["" if (e := one["evaluation"]) is None else _of(e) for one in told]
    if found["difference"]:
        yield "difference", ["", *(_interval(found["difference"][s.name], "+") if s.name in found["difference"] else ""
                                   for s in sides[1:])]  # fmt: skip


def _of(evaluation: dict[str, Any]) -> str:
    return f"{evaluation['n']} {evaluation['over']}{' of one seed' if evaluation['over'] == 'episodes' else ''}"


def _interval(found: dict[str, Any], sign: str = "") -> str:
    value, low, high = (found[name] for name in ("iqm", "low", "high"))
    return f"{value:{sign}.1f}" + ("" if low is None else f" [{low:{sign}.1f}, {high:{sign}.1f}]")


def _range(values: Sequence[float], form: str) -> str:
    if not values:
        return "none yet"
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"
