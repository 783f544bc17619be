"""How long a preset takes to a greedy return, as a distribution over seeds; two commits, or two settings, side by side.

    python bench/distribution.py lunarlander-ppo --name lunarlander-old-new --seeds 20 --first 1000 \\
        --side old OLD/.venv/bin/headrace --side new .venv/bin/headrace algorithm.minibatch=512

Each seed runs on every side in turn, nothing else running. Snapshots are evaluated after the run, by greedy.py;
`last` is the newest checkpoint's evaluation over 100 greedy episodes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hardware import save
from side_by_side import settle
from time_to import time_to

_SNAPSHOT_STEPS = 25_000


def run_one(preset: str, command: str, settings: list[str], seed: int, steps: int, threshold: float) -> dict[str, Any]:
    """One training of its own, and what it came to."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        wanted = [
            f"run.seed={seed}",
            f"run.total_steps={steps}",
            f"run.snapshot_every_steps={_SNAPSHOT_STEPS}",
            *settings,
        ]
        words = [word for setting in wanted for word in ("--set", setting)]
        before = _cpu_s()
        argv = [command, "train", preset, *words, "--run-dir", str(run), "--episodes", "0", "--no-gif"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        cpu_us = (_cpu_s() - before) * 1e6 / steps
        last = subprocess.run([command, "evaluate", str(run), "--json"], check=True, capture_output=True, cwd=folder)
        returns = json.loads(last.stdout)["returns"]
        found = time_to(run, threshold)
        del found["curve"]
    return {"seed": seed, **found, "cpu_us_per_step": round(cpu_us, 2),
            "last": {"mean": round(float(np.mean(returns)), 1), "worst": round(min(returns), 1)}}  # fmt: skip


def _cpu_s() -> float:
    """Of all processes that were started and have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one side. A seed that never passed counts as the end of its run."""
    times = [row["time_s"] for row in rows]
    return {
        "passed": sum(row["passed"] for row in rows),
        "runs": len(rows),
        "time_s": {f"p{p}": round(float(np.percentile(times, p)), 2) for p in (10, 50, 90, 100)},
        "steps_p50": int(np.median([row["steps"] for row in rows])),
        "cpu_us_per_step_p50": float(np.median([row["cpu_us_per_step"] for row in rows])),
        "worst_of_100": min(row["last"]["worst"] for row in rows),
        "last_mean": round(float(np.mean([row["last"]["mean"] for row in rows])), 1),
    }


def ratio(new: list[dict[str, Any]], old: list[dict[str, Any]], percentile: int) -> dict[str, float]:
    """The new side's percentile of times over the old one's, with a 95 % interval by the bootstrap over seeds."""
    rng, pairs = np.random.default_rng(0), np.array([(n["time_s"], o["time_s"]) for n, o in zip(new, old, strict=True)])
    drawn = pairs[rng.integers(len(pairs), size=(10_000, len(pairs)))]
    ratios = np.percentile(drawn[..., 0], percentile, axis=1) / np.percentile(drawn[..., 1], percentile, axis=1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    value = np.percentile(pairs[:, 0], percentile) / np.percentile(pairs[:, 1], percentile)
    return {"ratio": round(float(value), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("--name", help="of the file in bench/results/ (default: keep nothing)")
    parser.add_argument("--side", nargs="+", action="append", required=True, metavar="NAME HEADRACE SECTION.KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--threshold", type=float, default=200.0)
    args = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name, *_ in args.side}
    for seed in range(args.first, args.first + args.seeds):
        for name, command, *settings in args.side:
            settle()
            row = run_one(args.preset, command, settings, seed, args.steps, args.threshold)
            rows[name].append(row)
            print(f"{name} seed {seed}: {row['greedy_mean']:.0f} after {row['steps']:,} steps, {row['time_s']:.1f} s; "
                  f"last {row['last']['mean']:.0f}, worst {row['last']['worst']:.0f}", flush=True)  # fmt: skip
    base = next(iter(rows))
    found = {
        name: {
            **summary(mine),
            "settings": settings,
            "to_" + base: {f"p{p}": ratio(mine, rows[base], p) for p in (50, 90)},
        }
        for (name, _, *settings), mine in zip(args.side, rows.values(), strict=True)
    }
    print(json.dumps(found, indent=1))
    if args.name:
        print(save(args.name, {"preset": args.preset, "sides": found, "rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
