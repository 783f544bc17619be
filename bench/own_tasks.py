"""Are environments with masks, several observations and several actions learned? And does each part of them matter?

    per task and seed: headrace train -> headrace evaluate --episodes 100; once more with a part of it hidden

    python bench/own_tasks.py [--seeds 0 1 2] [--tasks cards dials signs signs-cnn] [--json own-tasks]

Of the most that can be won random play, among what is allowed, must get less than ``RANDOM``, every seed at least
``SOLVED``, and no seed that much with a part hidden. In Cards a forbidden action is an error that ends the run: there
is none in any of them. Exit code 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from hardware import ROOT, save
from own_envs import MOVES, Cards, Dials, Signs

HEADRACE = [sys.executable, "-m", "headrace.launch.cli"]
RANDOM, SOLVED, EPISODES = 0.2, 0.95, 100
SMALL = ["actors.envs=16", "actors.fragment_steps=32", "learner.device=cpu", "algorithm.gamma=0.0",
         "algorithm.minibatch=256", "algorithm.learning_rate=0.003"]  # fmt: skip
#: Its environment, how long it is trained and with what, and what is hidden from it for comparison.
TASKS: dict[str, tuple[Any, list[str], list[str]]] = {
    "cards": (Cards, ["run.total_steps=60_000"], ["masked=false"]),
    "dials": (Dials, ["run.total_steps=60_000"], ["without=0", "without=1"]),
    "signs": (Signs, ["run.total_steps=60_000", "algorithm.network=own_nets:Apart"],
              ["without=picture", "without=switch"]),
    "signs-cnn": (Signs, ["run.total_steps=50_000", "algorithm.network=impala_cnn", "algorithm.hidden=[64]",
                          "algorithm.minibatch=128", "algorithm.learning_rate=0.001", "algorithm.entropy_coef=0.02"],
                  []),
}  # fmt: skip


def trained(task: str, seed: int, hidden: str, folder: Path) -> dict[str, Any]:
    """One training by the command, and its greedy mean."""
    env, options, _ = TASKS[task]
    sets = [f"task.env=own_envs:{env.__name__}", f"run.seed={seed}", *SMALL, *options]
    sets += [f"task.kwargs.{hidden}"] if hidden else []
    run_dir = folder / f"{task}-{seed}-{hidden.replace('=', '-')}"
    argv = ["train", "cartpole-ppo", "--run-dir", str(run_dir), "--episodes", "0"]
    began = time.perf_counter()
    _headrace([*argv, *(word for one in sets for word in ("--set", one))])
    seconds = time.perf_counter() - began
    found = json.loads(_headrace(["evaluate", str(run_dir), "--episodes", str(EPISODES), "--json"]))
    return {"seed": seed, "hidden": hidden, "greedy_share": found["mean"] / MOVES, "seconds": round(seconds, 1)}


def played_at_random(task: str) -> float:
    """The share that random play gets: among what is allowed where there is a mask."""
    env, total = TASKS[task][0](), 0.0
    env.action_space.seed(0)
    for episode in range(1000):
        env.reset(seed=episode)
        over = False
        while not over:
            mask = env.action_masks() if hasattr(env, "action_masks") else None
            _, reward, over, _, _ = env.step(env.action_space.sample(mask) if mask is not None
                                             else env.action_space.sample())  # fmt: skip
            total += reward
    return total / 1000 / MOVES


def _headrace(arguments: list[str]) -> str:
    done = subprocess.run([*HEADRACE, *arguments], cwd=ROOT / "bench", capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"headrace {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--json", metavar="NAME", help="keep the figures as bench/results/NAME.json")
    args = parser.parse_args()
    held, results = True, {}
    with tempfile.TemporaryDirectory() as folder:
        for task in args.tasks:
            at_random, rows = played_at_random(task), []
            print(f"{task}: random play gets {at_random:.1%}", flush=True)
            for hidden in ("", *TASKS[task][2]):
                for seed in args.seeds:
                    row = trained(task, seed, hidden, Path(folder))
                    rows.append(row)
                    right = (row["greedy_share"] >= SOLVED) != bool(hidden)
                    held &= right
                    wrong = "" if right else "   NOT AS IT SHOULD BE"
                    what, took = f"seed {seed} {hidden or 'whole':16}", f"after {row['seconds']:.0f} s"
                    print(f"  {what} {row['greedy_share']:7.1%} {took}{wrong}", flush=True)
            held &= at_random < RANDOM
            whole = [row["greedy_share"] for row in rows if not row["hidden"]]
            results[task] = {"random_share": at_random, "worst_seed": float(np.min(whole)), "runs": rows}
            if args.json:  # a long way to the end
                save(args.json, {"solved_at": SOLVED, "episodes": EPISODES, "tasks": results})
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
