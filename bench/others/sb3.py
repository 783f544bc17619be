"""Stable-Baselines3 PPO on LunarLander-v3, three ways. Runs in its own environment (others/env.py).

same     the hyper-parameters of bench/bare.py, one thread, environments without a render mode
zoo      the hyper-parameters of rl-zoo, one thread, environments without a render mode
shipped  the hyper-parameters of rl-zoo and ``make_vec_env`` as it is, threads as they are. It sets a render mode, and
         then LunarLander makes a particle body per engine burst that only ``render()`` would remove.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from greedy import SNAPSHOT_STEPS, first_pass

ENV, ENVS = "LunarLander-v3", 16
ZOO = {"n_steps": 1024, "batch_size": 64, "n_epochs": 4, "gamma": 0.999, "gae_lambda": 0.98, "ent_coef": 0.01}
SAME = {**ZOO, "n_steps": 128, "batch_size": 256, "learning_rate": 1e-3, "clip_range": 0.2}


class Snapshots(BaseCallback):
    """Keeps (steps, training seconds, tensors) about every 25,000 steps, when an update is complete."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def _on_training_start(self):
        self.began = time.perf_counter()

    def _on_rollout_start(self):
        if self.num_timesteps // SNAPSHOT_STEPS > len(self.kept):
            self.keep()

    def _on_step(self):
        return True

    def keep(self):
        hidden = [layer for layer in self.model.policy.mlp_extractor.policy_net if hasattr(layer, "weight")]
        tensors = {}
        for i, layer in enumerate([*hidden, self.model.policy.action_net]):
            tensors[f"pi.{i}.weight"] = layer.weight.detach().numpy().T.copy()
            tensors[f"pi.{i}.bias"] = layer.bias.detach().numpy().copy()
        self.kept.append((self.num_timesteps, time.perf_counter() - self.began, tensors))


def main(args):
    if args.variant == "shipped":
        env = make_vec_env(ENV, n_envs=ENVS, seed=args.seed)
    else:
        torch.set_num_threads(1)
        env = DummyVecEnv([lambda: Monitor(gymnasium.make(ENV)) for _ in range(ENVS)])
    options = SAME if args.variant == "same" else ZOO
    model = PPO("MlpPolicy", env, seed=args.seed, device="cpu", **options)
    snapshots = Snapshots()
    began = time.perf_counter()
    model.learn(args.steps, callback=snapshots)
    wall = time.perf_counter() - began
    snapshots.keep()
    steps = model.num_timesteps
    result = {"steps": steps, "wall_s": wall, "steps_per_s": steps / wall, "threads": torch.get_num_threads()}
    print(f"Stable-Baselines3 {args.variant}: {steps / wall:,.0f} steps/s", flush=True)
    if args.until_greedy is not None:
        result["to_greedy"] = passed = first_pass(snapshots.kept, args.until_greedy)
        print(f"greedy {passed['greedy_mean']:.0f} after {passed['steps']:,} steps, {passed['time_s']:.1f} s")
    if args.json:
        Path(args.json).write_text(json.dumps({"options": vars(args), **result}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", choices=["same", "zoo", "shipped"])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until-greedy", type=float, metavar="R", help="then tell when the greedy mean reached R")
    parser.add_argument("--json", metavar="PATH", help="write the result there")
    main(parser.parse_args())
