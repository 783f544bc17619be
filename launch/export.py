"""headrace export RUN policy.onnx: a run's policy as one file that any ONNX runtime runs, with nothing of ours.

headrace export runs/cartpole-ppo-1 policy.onnx [--best | --checkpoint PATH] [--sample]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from headrace.algorithms.base import Policy
from headrace.common.errors import HeadraceError, UsageError
from headrace.common.types import Weights
from headrace.launch.build import Blueprint
from headrace.launch.evaluate import best_checkpoint, load_weights, steps_text
from headrace.launch.roles import place
from headrace.launch.run_files import stored_config
from headrace.tasks.gymnasium_env import make_env


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=place, metavar="RUN", help="a run directory")
    parser.add_argument("file", type=place, metavar="FILE", help="what to write, *.onnx")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the policy that evaluated best, instead of the newest")
    which.add_argument("--checkpoint", type=place, metavar="PATH", help="this checkpoint or snapshot (*.safetensors)")
    parser.add_argument("--sample", action="store_true", help="draw actions as in training instead of taking the best")


def run(args: argparse.Namespace) -> int:
    check_name(args.file)
    config = stored_config(args.run_dir)
    blueprint = Blueprint(config)
    path = best_checkpoint(args.run_dir) if args.best else args.checkpoint
    weights = load_weights(config, args.run_dir, path)
    policy = blueprint.policy()
    policy.load(weights)
    size = write(blueprint, policy, weights, args.file, args.sample)
    how = "samples its actions" if args.sample else "greedy"
    print(f"{args.file}: {size:,} bytes, {how}, version {weights.version}, {steps_text(weights.env_steps)}")
    return 0


def check_name(file: Path) -> None:
    """Raises :class:`UsageError` where no such file can be written."""
    if file.suffix.lower() != ".onnx" or not file.parent.is_dir():
        raise UsageError(f"{file}: name a file that ends in .onnx, in a directory that is there")


def write(blueprint: Blueprint, policy: Policy, weights: Weights, file: Path, sample: bool) -> int:
    """Write a policy that has loaded ``weights``; the file's bytes. Raises :class:`HeadraceError`: its subclass
    :class:`UsageError` for a policy that has no graph."""
    from headrace.algorithms.export import export  # where onnx is needed

    bounds, shape = _actions(blueprint)
    graph = export(policy, weights, blueprint.spaces, bounds, sample, shape)
    try:
        file.write_bytes(graph)
    except OSError as error:
        raise HeadraceError(f"{file}: {error.strerror or error}") from error
    return len(graph)


def _actions(blueprint: Blueprint) -> tuple[tuple[np.ndarray, np.ndarray] | None, tuple[int, ...]]:
    """The lowest and highest action, None where actions are whole numbers; and the shape of one."""
    task = blueprint.config.task
    env = make_env(task.env, dict(task.kwargs), None, task.wrappers)
    space = env.action_space
    env.close()
    return None if blueprint.spaces.action.choices else (space.low, space.high), tuple(space.shape)
