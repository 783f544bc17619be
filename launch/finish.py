"""What stands at the end of a run, whoever ran it: a greedy evaluation on unseen seeds, the curve, GIF and result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headrace.algorithms.base import Policy
from headrace.common import durable
from headrace.common.errors import CheckpointFailed, HeadraceError
from headrace.common.seeding import evaluation_seeds
from headrace.launch import evaluate
from headrace.launch.config import Config
from headrace.launch.evaluate import Evaluation
from headrace.launch.run_files import RESULT, ROWS
from headrace.learner import checkpoint_reader
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.observe import plot
from headrace.observe.rows import Row, read_rows
from headrace.tasks.gymnasium_env import reward_threshold


def finish(
    config: Config, run_dir: Path, episodes: int, gif: bool, say: Callable[[str], object] = print
) -> Evaluation | None:
    """Evaluate the newest checkpoint over ``episodes`` (0: not at all) and leave what people and programs look at; the
    evaluation. The checkpoint is there already: what a full disk does not take is said, and no failure."""
    rows = read_rows(run_dir / ROWS) if (run_dir / ROWS).exists() else []
    found, threshold = None, solved_at(config)
    if episodes > 0:
        policy, version, env_steps = evaluate.load_policy(config, run_dir)
        returns = evaluate.play(config, policy, evaluation_seeds(episodes))
        found = Evaluation(tuple(returns), version, env_steps)
        verdict = "" if threshold is None else f" ({'' if found.mean >= threshold else 'not '}solved: {threshold:g})"
        say(f"greedy evaluation: {found.mean:.1f} ± {found.interval:.1f} over {episodes} unseen episodes{verdict}")
    try:
        if found is not None:
            _mark_best(run_dir, found.mean)
        _write_result(run_dir, rows, found)
        say(f"curve: {_draw(config, run_dir, rows, found, threshold)}")
        if found is not None and gif:
            say(_film(config, run_dir, policy))
    except (OSError, CheckpointFailed) as error:
        print(f"{run_dir}: not everything could be written: {error}", file=sys.stderr)
    return found


def solved_at(config: Config) -> float | None:
    """The return at which the task counts as solved: the config's word, else Gymnasium's, else None."""
    if config.task.solved is not None:
        return config.task.solved
    return reward_threshold(config.task.env)


def _mark_best(run_dir: Path, score: float) -> None:
    """The newest checkpoint stays for good if it evaluated better than any before."""
    root = run_dir / "checkpoints"
    newest, before = checkpoint_reader.latest(root, parts=["acting"]), checkpoint_reader.best(root)
    if newest is not None and (before is None or score > before[1]):
        with CheckpointWriter(root) as writer:
            writer.mark_best(newest.path, score)


def _write_result(run_dir: Path, rows: Sequence[Row], found: Evaluation | None) -> None:
    result: dict[str, Any] = {"evaluation": None if found is None else found.to_json()}
    train_s, env_steps = (rows[-1]["time_s"], rows[-1]["env_steps"]) if rows else (0.0, 0)
    if found is not None and found.env_steps is not None:
        env_steps = found.env_steps  # the checkpoint's: rows may have been lost with a full disk
    result |= {"train_s": train_s, "steps_per_s": env_steps / max(train_s, 1e-9), "env_steps": env_steps}
    durable.replace_file(run_dir / RESULT, (json.dumps(result, indent=2) + "\n").encode())


def _draw(
    config: Config, run_dir: Path, rows: Sequence[Row], found: Evaluation | None, threshold: float | None
) -> Path:
    marks, path = [], run_dir / "returns.png"
    if found is not None:
        low, high = found.mean - found.interval, found.mean + found.interval
        marks = [plot.Evaluation(found.env_steps or 0, found.mean, low, high)]
    speed = rows[-1]["env_steps"] / max(rows[-1]["time_s"], 1e-9) if rows else 0.0
    title = f"{config.algorithm_label.upper()} on {config.task.env}, {speed:,.0f} steps/s"
    plot.plot_returns(rows, path, title=title, threshold=threshold, evaluations=marks)
    return path


def _film(config: Config, run_dir: Path, policy: Policy) -> str:
    """What came of it, for people."""
    path = run_dir / "final.gif"
    try:
        evaluate.write_gif(config, policy, path)
    except HeadraceError as error:  # an environment that cannot draw itself is no failed run
        return f"no GIF: {error}"
    return f"agent: {path}"
