"""What `headrace train` does when training is over: a greedy evaluation on unseen seeds, the curve, GIF and result."""

from __future__ import annotations

import json
from pathlib import Path

from headrace.algorithms.base import Policy
from headrace.common.errors import HeadraceError
from headrace.common.seeding import evaluation_seeds
from headrace.launch import evaluate
from headrace.launch.config import Config
from headrace.launch.evaluate import Evaluation
from headrace.learner import checkpoint_reader
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.observe import plot
from headrace.observe.rows import read_rows
from headrace.tasks.gymnasium_batch import find_spec


def finish(config: Config, run_dir: Path, episodes: int, gif: bool) -> None:
    """Evaluate the newest checkpoint over ``episodes`` and leave everything people and programs look at."""
    policy, version, env_steps = evaluate.load_policy(config, run_dir)
    returns = evaluate.play(config, policy, evaluation_seeds(episodes))
    found = Evaluation(tuple(returns), version, env_steps)
    _mark_best(run_dir, found.mean)
    _write_result(run_dir, found)
    threshold = solved_at(config)
    verdict = "" if threshold is None else f" ({'' if found.mean >= threshold else 'not '}solved: {threshold:g})"
    print(f"greedy evaluation: {found.mean:.1f} ± {found.interval:.1f} over {episodes} unseen episodes{verdict}")
    _draw(config, run_dir, found, threshold)
    if gif:
        _film(config, run_dir, policy)


def solved_at(config: Config) -> float | None:
    """The return at which the task counts as solved: the config's word, else Gymnasium's, else None."""
    if config.task.solved is not None:
        return config.task.solved
    threshold = find_spec(config.task.env).reward_threshold
    return None if threshold is None else float(threshold)


def _mark_best(run_dir: Path, score: float) -> None:
    """The newest checkpoint stays for good if it evaluated better than any before."""
    root = run_dir / "checkpoints"
    newest, before = checkpoint_reader.latest(root), checkpoint_reader.best(root)
    if newest is not None and (before is None or score > before[1]):
        with CheckpointWriter(root) as writer:
            writer.mark_best(newest.path, score)


def _write_result(run_dir: Path, found: Evaluation) -> None:
    train_s = read_rows(run_dir / "metrics.jsonl")[-1]["time_s"]
    steps_per_s = (found.env_steps or 0) / max(train_s, 1e-9)
    result = {"evaluation": found.to_json(), "train_s": train_s, "steps_per_s": steps_per_s}
    (run_dir / "result.json").write_text(json.dumps(result | {"env_steps": found.env_steps}, indent=2) + "\n")


def _draw(config: Config, run_dir: Path, found: Evaluation, threshold: float | None) -> None:
    rows, path = read_rows(run_dir / "metrics.jsonl"), run_dir / "returns.png"
    mark = plot.Evaluation(found.env_steps or 0, found.mean, found.mean - found.interval, found.mean + found.interval)
    speed = rows[-1]["env_steps"] / max(rows[-1]["time_s"], 1e-9)
    title = f"{config.algorithm['name'].upper()} on {config.task.env}, {speed:,.0f} steps/s"
    plot.plot_returns(rows, path, title=title, threshold=threshold, evaluations=[mark])
    print(f"curve: {path}")


def _film(config: Config, run_dir: Path, policy: Policy) -> None:
    path = run_dir / "final.gif"
    try:
        evaluate.write_gif(config, policy, path)
        print(f"agent: {path}")
    except HeadraceError as error:  # an environment that cannot draw itself is no failed run
        print(f"no GIF: {error}")
