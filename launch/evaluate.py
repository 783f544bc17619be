"""Greedy episodes on seeds nobody trained on: figures for people and programs, a GIF for the eye.

headrace evaluate RUN [--best | --checkpoint PATH] [--episodes N] [--gif F] [--render] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.algorithms.base import Policy
from headrace.common.errors import EnvironmentFailed, UsageError
from headrace.common.named import put, rows
from headrace.common.seeding import evaluation_seeds
from headrace.common.types import Array, Weights
from headrace.launch import best, film, snapshot
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.roles import place
from headrace.launch.run_files import stored_config
from headrace.observe.evaluations import with_interval
from headrace.tasks.gymnasium_batch import GymnasiumBatch

#: Episodes stepped side by side, with one batched forward.
_SIDE_BY_SIDE = 20
#: After so many steps of one episode it is said that it goes on: an environment without a time limit may never end.
_LONG_STEPS = 100_000
_log = logging.getLogger("headrace.evaluate")


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns of greedy episodes, in order of their seeds."""

    returns: tuple[float, ...]
    version: int
    env_steps: int | None
    """None: not known."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def interval(self) -> float:
        """Half the width of a 95 % interval of the mean (normal approximation); infinite for one episode."""
        if len(self.returns) < 2:
            return math.inf
        return float(1.96 * np.std(self.returns, ddof=1) / math.sqrt(len(self.returns)))

    @property
    def _interval95(self) -> float | None:
        """The same; None where it is infinite, for which JSON has no word."""
        return self.interval if math.isfinite(self.interval) else None

    @property
    def text(self) -> str:
        """For people."""
        return with_interval(self.mean, self._interval95)

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "interval95": self._interval95,
            "episodes": len(self.returns),
            "version": self.version,
            "env_steps": self.env_steps,
            "returns": list(self.returns),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=place, metavar="RUN", help="a run directory")
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="greedy episodes (default 100)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="index of the first evaluation seed")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the policy that evaluated best, instead of the newest")
    which.add_argument("--checkpoint", type=place, metavar="PATH", help="this checkpoint or snapshot (*.safetensors)")
    parser.add_argument("--gif", type=place, metavar="F", help="write one episode as a GIF")
    parser.add_argument("--render", action="store_true", help="show one episode in a window")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.episodes < 1:
        raise UsageError("--episodes: at least 1")
    if args.gif and (args.gif.suffix.lower() != ".gif" or not args.gif.parent.is_dir()):
        raise UsageError(f"--gif {args.gif}: name a file that ends in .gif, in a directory that is there")
    config = stored_config(args.run_dir)
    path = best_checkpoint(args.run_dir) if args.best else args.checkpoint
    policy, weights = load_policy(config, args.run_dir, path)
    if args.render:
        film.show(config, policy)
    returns = play(config, policy, evaluation_seeds(args.episodes, args.first))
    found = Evaluation(tuple(returns), weights.version, weights.env_steps)
    if args.gif:
        film.write_gif(config, policy, args.gif)
    if args.json:
        print(json.dumps(found.to_json()))
    else:
        print(f"{config.task.env}: {found.text} over {args.episodes} greedy episode{'s' * (args.episodes > 1)}"
              f" (lowest {min(returns):.1f}), version {found.version}, {steps_text(found.env_steps)}")  # fmt: skip
    return 0


def load_policy(config: Config, run_dir: Path, path: Path | None = None) -> tuple[Policy, Weights]:
    """The acting half from a checkpoint or snapshot (the newest whole checkpoint by default), and what it loaded."""
    weights = load_weights(config, run_dir, path)
    policy: Policy = Blueprint(config).policy()
    policy.load(weights)
    return policy, weights


def load_weights(config: Config, run_dir: Path, path: Path | None = None) -> Weights:
    """What the acting half loads."""
    one_file = path is not None and path.suffix == ".safetensors"
    tensors, said = snapshot.read(path) if path is not None and one_file else _acting(run_dir, path)
    return Weights(config.run.id, 0, said["version"], tensors, said["scalars"], said["env_steps"])


def steps_text(env_steps: int | None) -> str:
    """For people."""
    return "steps not known" if env_steps is None else f"{env_steps:,} steps"


def _acting(run_dir: Path, path: Path | None) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
    from headrace.learner import checkpoint_reader

    root = run_dir / "checkpoints"
    saved = checkpoint_reader.load(path, parts=["acting"]) if path else checkpoint_reader.latest(root, parts=["acting"])
    if saved is None:
        raise UsageError(f"{root}: no complete checkpoint in it")
    acting = saved.parts["acting"]
    return acting.tensors, {**saved.info["counters"], "scalars": acting.values["scalars"]}


def best_checkpoint(run_dir: Path) -> Path:
    """The file of the policy that evaluated best."""
    path = best.path_of(run_dir)
    if not path.exists():
        raise UsageError(f"--best: {run_dir} has none; the evaluations of a training leave it")
    return path


def play(
    config: Config, policy: Policy, seeds: Sequence[int], stepped: Callable[[], None] = lambda: None
) -> list[float]:
    """The undiscounted return of one greedy episode per seed. ``stepped`` is called after every step. Raises
    :class:`EnvironmentFailed` for an environment whose rewards add up to no number."""
    task, side_by_side = config.task, min(_SIDE_BY_SIDE, len(seeds))
    envs = GymnasiumBatch(task.env, side_by_side, dict(task.kwargs), task.wrappers)
    try:
        returns: list[float] = []
        for start in range(0, len(seeds), len(envs)):
            returns += _play_side_by_side(envs, policy, seeds[start : start + len(envs)], stepped)
        for seed, found in zip(seeds, returns, strict=True):
            if not math.isfinite(found):
                raise EnvironmentFailed(f"environment {task.env!r}: its rewards of seed {seed} add up to {found}")
        return returns
    finally:
        envs.close()


def _play_side_by_side(
    envs: GymnasiumBatch, policy: Policy, seeds: Sequence[int], stepped: Callable[[], None]
) -> list[float]:
    padded = [*seeds, *[seeds[0]] * (len(envs) - len(seeds))]
    obs, returns, rng = envs.reset(padded), np.zeros(len(envs)), np.random.default_rng(0)
    alive, state, steps = np.arange(len(seeds)), None, 0
    while len(alive):
        acted = policy.act(rows(obs, alive), state, rng, explore=False)
        action = np.zeros((len(envs), *acted.action.shape[1:]), acted.action.dtype)
        action[alive] = acted.action
        going_on = []
        for row, (i, (shown, reward, terminated, truncated)) in enumerate(
            zip(alive, envs.step_some(action, alive.tolist()), strict=True)
        ):
            returns[i] += envs.own_reward(int(i), reward)
            ended = terminated or truncated
            after = envs.goes_on(int(i)) if ended else shown
            if after is not None:
                put(obs, i, after)
                going_on.append(row)
            if ended and acted.state is not None:
                acted.state[row] = 0
        alive, state = alive[going_on], None if acted.state is None else acted.state[going_on]
        steps += 1
        if steps == _LONG_STEPS and len(alive):
            _log.warning(
                "%s: %d episodes of the evaluation go on after %d steps; what never ends needs a time limit "
                "(gymnasium.wrappers.TimeLimit)",
                envs.env_id,
                len(alive),
                steps,
            )
        stepped()
    return [float(r) for r in returns[: len(seeds)]]
