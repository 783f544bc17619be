"""How soon a trained agent is good again after its environment has changed.

newest checkpoint of RUN -> headrace train --init-from RUN, in the changed environment, in RUN/report/adapt/NAME, with a
snapshot of every version -> greedy episodes in the changed environment, snapshot by snapshot, up to the goal
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headrace.common.errors import HeadraceError, UsageError
from headrace.launch.build import Blueprint
from headrace.launch.config import Config, Weights
from headrace.launch.report.curve import final, progress, snapshots
from headrace.launch.report.greedy import FOLDER, Greedy
from headrace.launch.resume import finished
from headrace.launch.run_files import CONFIG, stored_config
from headrace.learner.checkpoint_reader import latest
from headrace.observe.report.findings import Adapted
from headrace.observe.report.metrics import Point

_EXAMPLE = "--adapt 'task.kwargs={gravity=-5.0}'"
_NAME_CHARS = 40


@dataclass(frozen=True)
class Change:
    """What was asked for: settings of the changed environment (and of the training in it), steps to train, and when an
    agent is back: at ``target``, or (``share``) at that share of what it had over ``floor``."""

    settings: tuple[str, ...]
    budget: int
    target: float
    floor: float
    share: float | None = None

    def goal(self, before: float) -> float:
        return self.target if self.share is None else self.floor + self.share * (before - self.floor)

    @property
    def said(self) -> str:
        return ", ".join(self.settings)


def changed(run_dir: Path, config: Config, change: Change) -> Config:
    """The config of the training after the change. Raises :class:`UsageError` for a change that is none, or that is
    not fit."""
    try:
        after = stored_config(run_dir, change.settings)
    except UsageError as error:
        raise UsageError(f"--adapt: {error}") from error
    if after.task == config.task:
        raise UsageError(f"--adapt {change.said}: leaves the task as it was; change it, for instance {_EXAMPLE}")
    run = {"id": "", "total_steps": change.budget, "snapshot_every_steps": 1, "init_from": None}
    after = after.model_copy(
        update={
            "run": after.run.model_copy(update=run),
            "transport": after.transport.model_copy(update={"url": "local://"}),
            "weights": Weights(),
        }
    )
    Blueprint(after).check()
    return after


def adapt(run_dir: Path, config: Config, change: Change, episodes: int) -> Adapted:
    """Where the change brought the agent below its goal: train in the changed environment, unless that was done before,
    and look when it is back."""
    before = final(run_dir, Greedy(config, run_dir, episodes))
    if before is None:
        raise UsageError(f"--adapt: {run_dir} has no checkpoint yet")
    goal, after = change.goal(before.mean), changed(run_dir, config, change)
    undisturbed = Greedy(after, run_dir, episodes).of(None).mean
    if undisturbed >= goal:
        at_once = (Point(0, undisturbed),)
        return Adapted(config.run.seed, str(run_dir), before.mean, goal, at_once, change.budget)
    place = run_dir / FOLDER / "adapt" / _name(run_dir, change)
    _train(run_dir, after, place)
    greedy, curve = Greedy(stored_config(place), place, episodes), list[Point]()
    for path in progress(snapshots(place), f"{run_dir.name}: greedy episodes after the change"):
        curve.append(greedy.of(path))
        if curve[-1].mean >= goal:
            break
    return Adapted(config.run.seed, str(place), before.mean, goal, tuple(curve), change.budget)


def _name(run_dir: Path, change: Change) -> str:
    """A folder of its own for every change, budget and state of the agent: one that was trained on is adapted anew."""
    newest = latest(run_dir / "checkpoints", parts=[])
    asked = json.dumps([change.settings, change.budget, newest.path.name if newest else ""])
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(change.settings).replace("task.", "")).strip("-")
    return f"{words[:_NAME_CHARS].strip('-.')}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def _train(run_dir: Path, config: Config, place: Path) -> None:
    """By the command that a person would type; one that was cut off goes on."""
    begun = (place / CONFIG).is_file()
    if begun and finished(place, stored_config(place)):
        return
    print(f"{run_dir}: training after the change, {config.run.total_steps:,} steps, in {place}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "changed.toml"
        file.write_text(config.to_toml(), encoding="utf-8")
        how = ["--resume"] if begun else [str(file), "--init-from", str(run_dir)]
        argv = [sys.executable, "-m", "headrace.launch.cli", "train", *how, "--run-dir", str(place)]
        done = subprocess.run([*argv, "--episodes", "0", "--no-gif"], stdout=sys.stderr, check=False)
    if done.returncode:
        raise HeadraceError(f"--adapt: the training in {place} ended with exit code {done.returncode}")
