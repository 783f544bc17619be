"""headrace export RUN policy.onnx: a run's policy as one file that any ONNX runtime runs, with nothing of ours.

headrace export runs/cartpole-ppo-1 policy.onnx [--best | --checkpoint PATH] [--sample]
"""

from __future__ import annotations

import argparse

import numpy as np

from headrace.common.errors import HeadraceError, UsageError
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
    if args.file.suffix.lower() != ".onnx" or not args.file.parent.is_dir():
        raise UsageError(f"{args.file}: name a file that ends in .onnx, in a directory that is there")
    config = stored_config(args.run_dir)
    blueprint = Blueprint(config)
    path = best_checkpoint(args.run_dir) if args.best else args.checkpoint
    weights, env_steps = load_weights(config, args.run_dir, path)
    policy = blueprint.policy()
    policy.load(weights)

    from headrace.algorithms.export import export  # where onnx is needed

    bounds, shape = _actions(blueprint)
    graph = export(policy, weights, blueprint.spaces, bounds, args.sample, shape)
    try:
        args.file.write_bytes(graph)
    except OSError as error:
        raise HeadraceError(f"{args.file}: {error.strerror or error}") from error
    how = "samples its actions" if args.sample else "greedy"
    print(f"{args.file}: {len(graph):,} bytes, {how}, version {weights.version}, {steps_text(env_steps)}")
    return 0


def _actions(blueprint: Blueprint) -> tuple[tuple[np.ndarray, np.ndarray] | None, tuple[int, ...]]:
    """The lowest and highest action, None where actions are whole numbers; and the shape of one."""
    task = blueprint.config.task
    env = make_env(task.env, dict(task.kwargs), None, task.wrappers)
    space = env.action_space
    env.close()
    return None if blueprint.spaces.action.choices else (space.low, space.high), tuple(space.shape)
