"""Greedy episodes on seeds nobody trained on: figures for people and programs, a GIF for the eye.

headrace evaluate RUN [--best | --checkpoint PATH] [--episodes N] [--gif F] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from headrace.algorithms.base import Policy
from headrace.common.errors import EnvironmentFailed, HeadraceError, UsageError
from headrace.common.own_code import cause
from headrace.common.seeding import evaluation_seeds
from headrace.common.types import Array, Weights
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.roles import place
from headrace.launch.run_files import stored_config
from headrace.tasks.gymnasium_batch import GymnasiumBatch
from headrace.tasks.gymnasium_env import make_env

#: Episodes stepped side by side, with one batched forward.
_SIDE_BY_SIDE = 20
_GIF_FPS, _GIF_WIDTH = 25, 300


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns of greedy episodes, in order of their seeds."""

    returns: tuple[float, ...]
    version: int
    env_steps: int | None
    """Unknown to an evaluator that only follows the weights."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def interval(self) -> float:
        """Half the width of a 95 % interval of the mean (normal approximation)."""
        if len(self.returns) < 2:
            return math.inf
        return float(1.96 * np.std(self.returns, ddof=1) / math.sqrt(len(self.returns)))

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "interval95": self.interval,
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
    which.add_argument("--best", action="store_true", help="the checkpoint that evaluated best, instead of the newest")
    which.add_argument("--checkpoint", type=place, metavar="PATH", help="this checkpoint or snapshot (*.safetensors)")
    parser.add_argument("--gif", type=place, metavar="F", help="write one episode as a GIF")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.episodes < 1:
        raise UsageError("--episodes: at least 1")
    if args.gif and (args.gif.suffix.lower() != ".gif" or not args.gif.parent.is_dir()):
        raise UsageError(f"--gif {args.gif}: name a file that ends in .gif, in a directory that is there")
    config = stored_config(args.run_dir)
    path = best_checkpoint(args.run_dir) if args.best else args.checkpoint
    policy, version, env_steps = load_policy(config, args.run_dir, path)
    returns = play(config, policy, evaluation_seeds(args.episodes, args.first))
    found = Evaluation(tuple(returns), version, env_steps)
    if args.gif:
        write_gif(config, policy, args.gif)
    if args.json:
        print(json.dumps(found.to_json()))
    else:
        print(f"{config.task.env}: {found.mean:.1f} ± {found.interval:.1f} over {args.episodes} greedy episodes"
              f" (lowest {min(returns):.1f}), version {version}, {env_steps:,} steps")  # fmt: skip
    return 0


def load_policy(config: Config, run_dir: Path, path: Path | None = None) -> tuple[Policy, int, int]:
    """The acting half from a checkpoint or snapshot (the newest whole checkpoint by default), its version and its
    environment steps."""
    weights, env_steps = load_weights(config, run_dir, path)
    policy: Policy = Blueprint(config).policy()
    policy.load(weights)
    return policy, weights.version, env_steps


def load_weights(config: Config, run_dir: Path, path: Path | None = None) -> tuple[Weights, int]:
    """What the acting half loads, and after how many environment steps it was so."""
    tensors, said = _snapshot(path) if path is not None and path.suffix == ".safetensors" else _acting(run_dir, path)
    return Weights(config.run.id, 0, said["version"], tensors, said["scalars"]), said["env_steps"]


def _acting(run_dir: Path, path: Path | None) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
    from headrace.learner import checkpoint_reader

    root = run_dir / "checkpoints"
    saved = checkpoint_reader.load(path, parts=["acting"]) if path else checkpoint_reader.latest(root, parts=["acting"])
    if saved is None:
        raise UsageError(f"{root}: no complete checkpoint in it")
    acting = saved.parts["acting"]
    return acting.tensors, {**saved.info["counters"], "scalars": acting.values["scalars"]}


def _snapshot(path: Path) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            said = json.loads((file.metadata() or {})["headrace"])
            return {name: file.get_tensor(name) for name in file.keys()}, said  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such snapshot") from error
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path} is no snapshot of this program: {error}") from error


def best_checkpoint(run_dir: Path) -> Path:
    from headrace.learner import checkpoint_reader

    found = checkpoint_reader.best(run_dir / "checkpoints")
    if found is None:
        raise UsageError(f"--best: {run_dir} has none; the evaluation at the end of a training marks it")
    return found[0]


def play(
    config: Config, policy: Policy, seeds: Sequence[int], stepped: Callable[[], None] = lambda: None
) -> list[float]:
    """The undiscounted return of one greedy episode per seed. ``stepped`` is called after every step."""
    task, side_by_side = config.task, min(_SIDE_BY_SIDE, len(seeds))
    envs = GymnasiumBatch(task.env, side_by_side, dict(task.kwargs), task.wrappers)
    try:
        returns: list[float] = []
        for start in range(0, len(seeds), len(envs)):
            returns += _play_side_by_side(envs, policy, seeds[start : start + len(envs)], stepped)
        return returns
    finally:
        envs.close()


def _play_side_by_side(
    envs: GymnasiumBatch, policy: Policy, seeds: Sequence[int], stepped: Callable[[], None]
) -> list[float]:
    padded = [*seeds, *[seeds[0]] * (len(envs) - len(seeds))]
    obs, returns, rng = envs.reset(padded), np.zeros(len(envs)), np.random.default_rng(0)
    alive, state = np.arange(len(seeds)), None
    while len(alive):
        acted = policy.act(obs[alive], state, rng, explore=False)
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
                obs[i] = after
                going_on.append(row)
            if ended and acted.state is not None:
                acted.state[row] = 0
        alive, state = alive[going_on], None if acted.state is None else acted.state[going_on]
        stepped()
    return [float(r) for r in returns[: len(seeds)]]


def write_gif(config: Config, policy: Policy, path: Path, max_frames: int = 400) -> None:
    """One greedy episode, every other frame, as a GIF people can look at. Raises :class:`EnvironmentFailed` for an
    environment that cannot be drawn."""

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without looking for a screen
    env = make_env(config.task.env, dict(config.task.kwargs), "rgb_array", config.task.wrappers)
    batch = GymnasiumBatch.of([env], config.task.env)
    obs, state, frames, rng = batch.reset(evaluation_seeds(1)), None, [], np.random.default_rng(0)
    for step in range(2 * max_frames):
        if step % 2 == 0:
            frames.append(_frame(env, config.task.env))
        acted = policy.act(obs, state, rng, explore=False)
        ((shown, _, terminated, truncated),) = batch.step_some(acted.action, [0])
        state = acted.state
        if terminated or truncated:
            after, state = batch.goes_on(0), None
            if after is None:
                break
            shown = after
        obs = np.asarray([shown], batch.spaces.obs_dtype)
    batch.close()
    try:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // _GIF_FPS, loop=0, optimize=True)
    except OSError as error:
        raise HeadraceError(f"{path}: {error.strerror or error}") from error


def _frame(env: Any, env_id: str) -> Any:
    """What an environment draws, as a picture."""
    from PIL import Image

    try:
        frame = Image.fromarray(np.asarray(env.render()))
        return frame.resize((_GIF_WIDTH, max(1, frame.height * _GIF_WIDTH // frame.width)))
    except Exception as error:  # other people's code, or what it returned is no picture
        raise EnvironmentFailed(f"environment {env_id!r} cannot be drawn: {cause(error)}") from error
