"""Sample Factory's asynchronous PPO on LunarLander, steps/s. Runs in its own environment (others/env.py).

same     2 workers x 16 environments, rollout 128, minibatch 256, 8 minibatches, 4 epochs, 64x64 tanh, rate 1e-3
fastest  2 workers x 32 environments, rollout 64, minibatch 1024, 4 minibatches, 4 epochs, the same network and rate
default  2 workers x 8 environments, everything else as Sample Factory has it (a GRU of 512)

It needs gymnasium 0.29, where the environment is still called LunarLander-v2; with the wind off, as it is by default,
v3 steps alike. One network serves policy and value (its way), half of what the others compute.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

# This file has the package's name: without its own folder on the path, the import below finds the package.
sys.path.pop(0)
import gymnasium

arguments = importlib.import_module("sample_factory.cfg.arguments")
register_env = importlib.import_module("sample_factory.envs.env_utils").register_env
make_runner = importlib.import_module("sample_factory.train").make_runner

ENV = "LunarLander-v2"
MATCHED = {
    "use_rnn": False, "recurrence": 1, "encoder_mlp_layers": "64 64", "nonlinearity": "tanh", "learning_rate": 1e-3,
    "num_epochs": 4, "gamma": 0.999, "gae_lambda": 0.98, "ppo_clip_ratio": 0.2, "exploration_loss_coeff": 0.01,
    "max_grad_norm": 0.5, "normalize_input": False, "normalize_returns": False,
}  # fmt: skip
VARIANTS = {
    "same": {**MATCHED, "num_envs_per_worker": 16, "rollout": 128, "batch_size": 256, "num_batches_per_epoch": 8},
    "fastest": {**MATCHED, "num_envs_per_worker": 32, "rollout": 64, "batch_size": 1024, "num_batches_per_epoch": 4},
    "default": {"num_envs_per_worker": 8},
}


def make_env(name, cfg=None, env_config=None, render_mode=None):
    return gymnasium.make(name)


def main(args):
    register_env(ENV, make_env)
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "algo": "APPO", "env": ENV, "experiment": "bench", "train_dir": folder, "device": "cpu",
            "seed": args.seed, "num_workers": 2, "train_for_env_steps": args.steps, "restart_behavior": "overwrite",
            "save_every_sec": 3600, "decorrelate_envs_on_one_worker": False, **VARIANTS[args.variant],
        }  # fmt: skip
        argv = [word for key, value in options.items() for word in (f"--{key}", *str(value).split())]
        parser, _ = arguments.parse_sf_args(argv)
        _, runner = make_runner(arguments.parse_full_cfg(parser, argv))
        runner.init()
        progress, began = [], time.perf_counter()
        count = runner._update_stats_and_print_report
        runner._update_stats_and_print_report = lambda: (count(), progress.append(counted(runner, began)))
        runner.run()
        wall = time.perf_counter() - began
    report(args, runner, wall, progress)


def counted(runner, began):
    """(seconds since the start, environment steps that the learner has trained on)."""
    return time.perf_counter() - began, runner.total_env_steps_since_resume or 0


def report(args, runner, wall, progress):
    steps = runner.total_env_steps_since_resume
    running = [point for point in progress if point[1] > 0]
    (t0, s0), (t1, s1) = (running[0], running[-1]) if len(running) > 1 else ((0.0, 0), (wall, steps))
    result = {
        "env": ENV,
        "steps": steps,
        "wall_s": wall,
        "wall_steps_per_s": steps / wall,
        "own_steps_per_s": steps / runner.timing.main_loop,
        # The start of its processes left out: the figure kindest to it.
        "steps_per_s": (s1 - s0) / (t1 - t0),
    }
    print(
        f"Sample Factory {args.variant} ({ENV}): {result['steps_per_s']:,.0f} steps/s once running, "
        f"{result['own_steps_per_s']:,.0f} by its own count, {result['wall_steps_per_s']:,.0f} by the clock"
    )
    if args.json:
        Path(args.json).write_text(json.dumps({"options": vars(args), **result}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", choices=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="PATH", help="write the result there")
    main(parser.parse_args())
