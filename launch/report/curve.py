"""A run's return over its environment steps, from the best there is:

evaluations.jsonl          greedy evaluations, made while it was trained
snapshots/                 weights kept every so many steps (run.snapshot_every_steps), evaluated now
metrics.jsonl              what actors say of their exploring policies; never called anything else
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.launch.config import Config
from headrace.launch.report.greedy import Greedy
from headrace.launch.run_files import RESULT, ROWS
from headrace.learner.checkpoint_reader import read_json
from headrace.observe.evaluations import FILE, read_evaluations
from headrace.observe.report.findings import Seed, Source
from headrace.observe.report.metrics import Point, as_it_stands
from headrace.observe.rows import Row, Tail, lineage

SNAPSHOTS = "snapshots"


def read_seed(config: Config, run_dir: Path, greedy: Greedy, by_snapshots: bool) -> Seed:
    """What is known of one run. ``by_snapshots``: judge by them though there are evaluations. Raises
    :class:`UsageError` where nothing is."""
    rows = lineage(Tail(run_dir / ROWS).new_rows())
    source, curve = _best_there_is(run_dir, rows, greedy, by_snapshots)
    last = final(run_dir, greedy)
    if source != "training" and last is not None and (not curve or last.env_steps > curve[-1].env_steps):
        curve.append(last)
    ended = [point.env_steps for point in (*curve, *([last] if last else []))]
    env_steps = max([*(row["env_steps"] for row in rows[-1:]), *ended], default=0)
    if not curve and last is None:
        raise UsageError(f"report: {run_dir} has neither evaluations nor snapshots nor rows nor a checkpoint yet")
    if last is None and source != "training":
        last = curve[-1]
    return Seed(
        str(run_dir),
        config.run.seed,
        source,
        tuple(curve),
        env_steps,
        config.run.total_steps,
        None if last is None else last.mean,
    )


def final(run_dir: Path, greedy: Greedy) -> Point | None:
    """The newest checkpoint's greedy evaluation: that of the training's end where it is of that checkpoint."""
    if not any((run_dir / "checkpoints").glob("ckpt-*")):
        return None
    result = read_json(run_dir / RESULT, env_steps=int)
    found = None if result is None else result.get("evaluation")
    if isinstance(found, dict) and isinstance(found.get("mean"), (int, float)) and found.get("env_steps"):
        rows = Tail(run_dir / ROWS).new_rows()
        if not rows or rows[-1]["env_steps"] <= found["env_steps"]:
            return Point(int(found["env_steps"]), float(found["mean"]))
    return greedy.of(None)


def snapshots(run_dir: Path) -> list[Path]:
    """The run's snapshots as it stands, in the order of their steps."""
    try:
        lines = (run_dir / SNAPSHOTS / "index.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    steps = as_it_stands(Point(row["steps"], 0.0) for row in _objects(lines) if isinstance(row.get("steps"), int))
    paths = [run_dir / SNAPSHOTS / f"{point.env_steps}.safetensors" for point in steps]
    return [path for path in paths if path.is_file()]


def _best_there_is(
    run_dir: Path, rows: Sequence[Row], greedy: Greedy, by_snapshots: bool
) -> tuple[Source, list[Point]]:
    kept = snapshots(run_dir)
    evaluated = [] if by_snapshots and kept else evaluations(run_dir, rows)
    if evaluated:
        return "evaluations", evaluated
    if kept:
        return "snapshots", [greedy.of(path) for path in progress(kept, f"{run_dir.name}: greedy episodes")]
    return "training", [Point(row["env_steps"], row["return_mean"]) for row in rows if row["return_mean"] is not None]


def evaluations(run_dir: Path, rows: Sequence[Row]) -> list[Point]:
    """Those of the evaluator. One that knew only the version is put at the first row that has it: not before it was."""
    points = []
    for found in read_evaluations(run_dir / FILE):
        steps, version = found.get("env_steps"), found.get("version")
        if steps is None and isinstance(version, int):
            steps = next((row["env_steps"] for row in rows if row["version"] >= version), None)
        if isinstance(steps, int):
            points.append(Point(steps, float(found["mean"])))
    return as_it_stands(points)


def progress(paths: Sequence[Path], what: str) -> Iterable[Path]:
    """The same, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(paths, what, console=console, transient=True, disable=not console.is_terminal)


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row
