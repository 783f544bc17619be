"""What the options of ``[learner]`` are worth on this machine: bf16, torch.compile and CUDA graphs, per gradient step.

    python bench/learner_options.py [--rounds 7] [--name learner-options]
        -> bench/results/NAME.json, docs/NAME.md

Every variant of a workload makes the same updates in turn; ratios to the first one are taken within a round. What a
device does not have is not in the table. "Start" is the first two updates: compiling and recording happen there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from hardware import RESULTS, ROOT, relative, save

from headrace.algorithms.base import Batch
from headrace.algorithms.device import CPU, Device
from headrace.algorithms.dqn import DQN
from headrace.algorithms.dqn import Config as DQNConfig
from headrace.algorithms.ppo import PPO
from headrace.algorithms.ppo import Config as PPOConfig
from headrace.common.types import Spaces

SPACES = Spaces.box((8,), n_actions=4)
#: name -> (an algorithm on a device, a batch for one update, gradient steps of that)
Workload = tuple[Callable[[Device], Any], Batch, int]


def ppo(hidden: int, minibatch: int, steps: int) -> Workload:
    config, rng = PPOConfig(hidden=(hidden, hidden), minibatch=minibatch), np.random.default_rng(0)
    T, B = steps // 16, 16
    arrays = {
        "obs": rng.standard_normal((T + 1, B, 8)).astype(np.float32),
        "action": rng.integers(0, 4, (T, B)),
        "reward": rng.standard_normal((T, B)).astype(np.float32),
        "terminated": np.zeros((T, B), bool),
        "truncated": np.zeros((T, B), bool),
        "behaviour_logp": np.full((T, B), np.log(0.25), np.float32),
        "final_obs": np.zeros((0, 8), np.float32),
        "final_t": np.zeros(0, np.int64),
        "final_b": np.zeros(0, np.int64),
    }
    return lambda device: PPO(config, SPACES, 0, device), Batch(arrays, steps), config.epochs * (steps // minibatch)


def dqn(hidden: int, minibatch: int) -> Workload:
    config, rng = DQNConfig(hidden=(hidden, hidden), minibatch=minibatch), np.random.default_rng(0)
    arrays = {
        "obs": rng.standard_normal((minibatch, 8)).astype(np.float32),
        "next_obs": rng.standard_normal((minibatch, 8)).astype(np.float32),
        "action": rng.integers(0, 4, minibatch),
        "reward": rng.standard_normal(minibatch).astype(np.float32),
        "discount": np.full(minibatch, 0.99, np.float32),
        "weight": np.ones(minibatch, np.float32),
    }
    return lambda device: DQN(config, SPACES, 0, device), Batch(arrays, minibatch), 1


WORKLOADS: dict[str, Workload] = {
    "PPO 64x64, minibatch 256": ppo(64, 256, 2048),
    "PPO 512x512, minibatch 2048": ppo(512, 2048, 4096),
    "DQN 128x128, minibatch 128": dqn(128, 128),
}


def devices() -> dict[str, Device]:
    """The first is the default on a machine without a GPU, and what the others are compared with."""
    found = {
        "cpu": CPU,
        "cpu, bf16": Device("cpu", "bfloat16"),
        "cpu, compile": Device("cpu", compile=True),
    }
    if torch.cuda.is_available():
        found |= {
            "cuda": Device("cuda"),
            "cuda, bf16": Device("cuda", "bfloat16"),
            "cuda, compile": Device("cuda", compile=True),
            "cuda, graphs": Device("cuda", graphs=True),
            "cuda, graphs, bf16": Device("cuda", "bfloat16", graphs=True),
            "cuda, graphs, compile": Device("cuda", compile=True, graphs=True),
        }
    return found


def measure(workload: Workload, rounds: int, round_s: float) -> dict[str, dict[str, float]]:
    make, batch, steps = workload
    algorithms, start_s = {name: make(device) for name, device in devices().items()}, {}
    for name, algorithm in algorithms.items():
        start_s[name] = timed(algorithm, batch, 2)
    updates = max(1, round(round_s / (timed(algorithms["cpu"], batch, 3) / 3)))
    times: dict[str, list[float]] = {name: [] for name in algorithms}
    for _ in range(rounds):
        for name, algorithm in algorithms.items():
            times[name].append(timed(algorithm, batch, updates) / (updates * steps) * 1e3)
    return {name: {
        "ms_per_gradient_step": round(median(ms), 4),
        "times_as_fast_as_cpu": round(median(c / m for c, m in zip(times["cpu"], ms, strict=True)), 3),
        "start_s": round(start_s[name], 2),
    } for name, ms in times.items()}  # fmt: skip


def timed(algorithm: Any, batch: Batch, updates: int) -> float:
    """Seconds; every update ends by reading figures back, so nothing is left in flight."""
    began = time.perf_counter()
    for _ in range(updates):
        algorithm.update(batch)
    return time.perf_counter() - began


def page(payload: dict[str, Any]) -> str:
    hardware = payload["hardware"]
    lines = [
        "# Options of the learner, measured",
        "",
        f"{hardware['cpu']}, {hardware['cores']} cores, {', '.join(hardware['gpus']) or 'no GPU'}; torch "
        f"{hardware['versions']['torch']}, {payload['threads']} thread; commit {hardware['commit'][:12]}, "
        f"{hardware['date'][:10]}. Made by `{hardware['command']}`: medians of {payload['rounds']} rounds, ratios "
        "within each.",
        "",
        "| | ms a gradient step | times as fast as the CPU's default | start, s |",
        "|---|---:|---:|---:|",
    ]
    for workload, found in payload["workloads"].items():
        lines += [
            f"| {workload}: {name} | {f['ms_per_gradient_step']:.3f} | {f['times_as_fast_as_cpu']:.2f} | "
            f"{f['start_s']:.1f} |"
            for name, f in found.items()
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--round-s", type=float, default=1.0, help="how long the CPU's default takes for a round")
    parser.add_argument("--name", default="learner-options", help="of the file in bench/results and the page in docs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    workloads = {name: measure(w, args.rounds, args.round_s) for name, w in WORKLOADS.items()}
    path = save(args.name, {"rounds": args.rounds, "threads": 1, "workloads": workloads})
    text = page(json.loads((RESULTS / f"{args.name}.json").read_text()))
    (ROOT / "docs" / f"{args.name}.md").write_text(text)
    print(text, relative(str(path)), sep="\n")


if __name__ == "__main__":
    main()
