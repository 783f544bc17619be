"""What stands at the end of a run, whoever ran it: a greedy evaluation on unseen seeds, the curve, GIF and result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.algorithms.base import Policy
from headrace.common.errors import HeadraceError
from headrace.common.seeding import evaluation_seeds, selection_seeds
from headrace.common.types import Weights
from headrace.launch import best, evaluate, film, result
from headrace.launch.config import Config
from headrace.launch.evaluate import Evaluation
from headrace.launch.run_files import ROWS
from headrace.launch.solved import solved_at
from headrace.observe import evaluations, plot
from headrace.observe.rows import Row, read_rows


def finish(
    config: Config, run_dir: Path, episodes: int, gif: bool, say: Callable[[str], object] = print
) -> Evaluation | None:
    """Evaluate the newest checkpoint over ``episodes`` (0: not at all) and leave what people and programs look at; the
    evaluation. The checkpoint is there already: what a full disk does not take is said, and no failure."""
    rows = read_rows(run_dir / ROWS) if (run_dir / ROWS).exists() else []
    found, threshold = None, solved_at(config)
    if episodes > 0:
        policy, weights = evaluate.load_policy(config, run_dir)
        returns = evaluate.play(config, policy, evaluation_seeds(episodes))
        found = Evaluation(tuple(returns), weights.version, weights.env_steps)
        verdict = "" if threshold is None else f" ({'' if found.mean >= threshold else 'not '}solved: {threshold:g})"
        say(f"greedy evaluation: {found.text} over {episodes} unseen episode{'s' * (episodes > 1)}{verdict}")
    try:
        if found is not None:
            _keep_best(config, run_dir, policy, weights)
        result.write(config, run_dir, rows, found)
        say(f"curve: {_draw(config, run_dir, rows, found, threshold)}")
        if found is not None and gif:
            say(_film(config, run_dir, policy))
    except OSError as error:
        print(f"{run_dir}: not everything could be written: {error}", file=sys.stderr)
    return found


def _keep_best(config: Config, run_dir: Path, policy: Policy, weights: Weights) -> None:
    """The last policy takes the place of the best one if it does better on the same episodes: those that are there to
    choose by, not those that are reported."""
    before = best.score(run_dir)
    if before is None:  # nothing was evaluated during training: there is nothing to choose from
        best.keep(run_dir, weights, None)
        return
    returns = evaluate.play(config, policy, selection_seeds(config.run.evaluation_episodes))
    found = Evaluation(tuple(returns), weights.version, weights.env_steps)
    if found.mean > before:
        best.keep(run_dir, weights, evaluations.short(found.to_json()))


def _draw(
    config: Config, run_dir: Path, rows: Sequence[Row], found: Evaluation | None, threshold: float | None
) -> Path:
    path, shown = run_dir / "returns.png", evaluations.read_evaluations(run_dir / evaluations.FILE)
    shown += [] if found is None else [found.to_json()]
    marks = [
        plot.Evaluation(e["env_steps"], e["mean"], e["mean"] - e["interval95"], e["mean"] + e["interval95"])
        for e in shown
        if e.get("env_steps") is not None and e["interval95"] is not None
    ]
    speed = rows[-1]["env_steps"] / max(rows[-1]["time_s"], 1e-9) if rows else 0.0
    title = f"{config.algorithm_label.upper()} on {config.task.env}, {speed:,.0f} steps/s"
    plot.plot_returns(rows, path, title=title, threshold=threshold, evaluations=marks)
    return path


def _film(config: Config, run_dir: Path, policy: Policy) -> str:
    """What came of it, for people."""
    path = run_dir / "final.gif"
    try:
        film.write_gif(config, policy, path)
    except HeadraceError as error:  # an environment that cannot draw itself is no failed run
        return f"no GIF: {error}"
    return f"agent: {path}"
