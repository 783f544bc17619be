"""Does it learn? Trains each seed by ``headrace train`` and evaluates it greedily on episodes nobody trained on.

    per carrier and seed: headrace train PRESET -> headrace evaluate RUN --episodes 100 -> a row

    python bench/learning.py --preset lunarlander-ppo --seeds 0 1 2 3 4 [--set SECTION.KEY=VALUE] [--json NAME]
    python bench/learning.py --preset lunarlander-ppo --seeds 0 1 2 --carriers local kafka

A seed passes when its mean reaches ``--threshold`` (default: what Gymnasium registered); with ``--improves``, when
its 95 % interval lies above the untrained policy's. Kafka is a broker of its own, started by ``headrace broker`` and
stopped at the end. Exit code 1 where a seed does not pass, or the mean over seeds stays below ``--mean``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from hardware import ROOT, relative, save

from headrace.common.seeding import evaluation_seeds
from headrace.common.types import Weights
from headrace.launch.build import Blueprint
from headrace.launch.evaluate import Evaluation, play
from headrace.launch.load import load
from headrace.launch.solved import solved_at
from headrace.observe.rows import read_rows

HEADRACE = [sys.executable, "-m", "headrace.launch.cli"]


@contextlib.contextmanager
def kafka(folder: Path) -> Iterator[str]:
    """host:port of a broker that lives as long as the context."""
    where = ["--data-dir", str(folder / "broker")]
    said = subprocess.run(
        [*HEADRACE, "broker", "start", "--port", "0", *where], check=True, capture_output=True, text=True
    )
    try:
        found = re.search(r" at (\S+:\d+) ", said.stdout)
        assert found, said.stdout
        yield found.group(1)
    finally:
        subprocess.run([*HEADRACE, "broker", "stop", *where], check=True, stdout=subprocess.DEVNULL)


def train(preset: str, overrides: list[str], run_dir: Path) -> dict[str, Any]:
    """One run and what its own records say of it."""
    sets = [word for override in overrides for word in ("--set", override)]
    argv = [*HEADRACE, "train", preset, "--run-dir", str(run_dir), "--episodes", "0", *sets]
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv[1:])}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    rows = read_rows(run_dir / "metrics.jsonl")
    return {
        "steps": rows[-1]["env_steps"],
        "versions": rows[-1]["version"],
        "train_s": rows[-1]["time_s"],
        "wall_s": round(time.perf_counter() - began, 1),
        "steps_per_s": round(rows[-1]["env_steps"] / rows[-1]["time_s"]),
        "staleness_max": max(row["staleness_max"] for row in rows),
        "rejected": rows[-1]["rejected"],
    }


def evaluate(run_dir: Path, episodes: int) -> dict[str, Any]:
    argv = [*HEADRACE, "evaluate", str(run_dir), "--episodes", str(episodes), "--json"]
    found = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return {"mean": found["mean"], "interval95": found["interval95"], "lowest": min(found["returns"])}


def untrained(preset: str, overrides: list[str], episodes: int) -> dict[str, float]:
    """The policy as the seed initialises it, over the same episodes."""
    blueprint = Blueprint(load(preset, overrides))
    tensors, scalars = blueprint.algorithm().weights()
    policy = blueprint.policy()
    policy.load(Weights("untrained", 0, 0, tensors, scalars))
    found = Evaluation(tuple(play(blueprint.config, policy, evaluation_seeds(episodes))), 0, 0)
    return {"mean": found.mean, "interval95": found.interval}


def learn(args: argparse.Namespace, carrier: str, seed: int, folder: Path, bootstrap: str) -> dict[str, Any]:
    """One row: training, evaluation, and whether the seed passed."""
    overrides = [*args.overrides, f"run.seed={seed}"]
    before = untrained(args.preset, overrides, args.episodes)
    run_dir = folder / f"{carrier}-{seed}"
    url = f"kafka://{bootstrap}/learning-{seed}" if carrier == "kafka" else "local://"
    row = train(args.preset, [*overrides, f"transport.url={url}"], run_dir)
    row |= evaluate(run_dir, args.episodes)
    if args.threshold is not None:
        passed = row["mean"] >= args.threshold
    else:
        passed = row["mean"] - row["interval95"] > before["mean"] + before["interval95"]
    return {"carrier": carrier, "seed": seed, **row, "untrained": before, "passed": passed}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the rows of one carrier."""
    means = [row["mean"] for row in rows]
    return {
        "seeds": len(rows),
        "passed": sum(row["passed"] for row in rows),
        "mean_over_seeds": round(fmean(means), 2),
        "spread_over_seeds": round(pstdev(means), 2),
        "worst_seed": round(min(means), 2),
        "untrained_mean": round(fmean(row["untrained"]["mean"] for row in rows), 2),
        "train_s_mean": round(fmean(row["train_s"] for row in rows), 2),
        "steps_per_s_mean": round(fmean(row["steps_per_s"] for row in rows)),
        "staleness_max": max(row["staleness_max"] for row in rows),
        "rejected_as_stale": sum(row["rejected"].get("stale", 0) for row in rows),
        "rejected": sum(sum(row["rejected"].values()) for row in rows),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="of training")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--carriers", nargs="+", choices=["local", "kafka"], default=["local"])
    parser.add_argument("--episodes", type=int, default=100, help="greedy episodes a seed (default %(default)s)")
    parser.add_argument("--mean", type=float, metavar="R", help="mean over seeds to reach (default: none)")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--threshold", type=float, metavar="R", help="mean each seed must reach (default: the registered one)"
    )
    asked.add_argument("--improves", action="store_true", help="ask only that training improves the policy")
    parser.add_argument("--json", metavar="NAME", help="bench/results/NAME.json (default: learning-PRESET)")
    args = parser.parse_args()
    config = load(args.preset, args.overrides)
    if args.threshold is None and not args.improves:
        args.threshold = solved_at(config)
        if args.threshold is None:
            parser.error(f"{args.preset} has no registered threshold; give --threshold or --improves")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="headrace-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        bootstrap = stack.enter_context(kafka(folder)) if "kafka" in args.carriers else ""
        for seed in args.seeds:
            for carrier in args.carriers:  # side by side, so that a machine whose speed drifts favours neither
                rows.append(row := learn(args, carrier, seed, folder, bootstrap))
                print(f"{carrier} seed {seed}: {row['mean']:.1f} ± {row['interval95']:.1f} "
                      f"({'passed' if row['passed'] else 'NOT passed'}; untrained {row['untrained']['mean']:.1f}), "
                      f"{row['steps']:,} steps in {row['train_s']:.1f} s, {row['steps_per_s']:,} steps/s, "
                      f"staleness at most {row['staleness_max']}, rejected {row['rejected'] or 'none'}",
                      flush=True)  # fmt: skip
    found = {carrier: summary([r for r in rows if r["carrier"] == carrier]) for carrier in args.carriers}
    path = save(args.json or f"learning-{args.preset}", {
        "preset": args.preset, "env": config.task.env, "overrides": args.overrides, "episodes": args.episodes,
        "threshold": args.threshold, "mean_threshold": args.mean, "summary": found, "runs": rows,
    })  # fmt: skip
    for carrier, s in found.items():
        print(f"{carrier}: {s['passed']} of {s['seeds']} seeds passed, mean over seeds {s['mean_over_seeds']}, "
              f"spread {s['spread_over_seeds']}, worst {s['worst_seed']}, stale {s['rejected_as_stale']}")  # fmt: skip
    print(relative(str(path)))
    above = args.mean is None or all(s["mean_over_seeds"] >= args.mean for s in found.values())
    return 0 if above and all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
