"""The ladder: what each stage costs, in environment steps per second, and as a ratio to the rung above.

    environment alone -> + inference -> + carrier -> + learner, parameter server (local://) -> + Kafka

    python bench/ladder.py [--preset lunarlander-ppo] [--seconds 10] [--repeats 3] [--kafka] [--json NAME]

The Kafka rung starts a broker of its own. On a cluster it runs elsewhere; here it takes processor time from actors and
learner. So there is a second figure with that time counted out: steps/s divided by the share of all cores' time, from
the start of `headrace train` to its end, that the broker did not use.

Every rung runs the same number of actor processes with the same environments; medians over the repeats, rungs in turn
within each repeat, so that a machine whose speed drifts does not favour one of them. The reference (bench/bare.py) runs
in every repeat too.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import hardware
import psutil
from rungs import RUNGS, actors_only

from headrace.launch import broker
from headrace.launch.load import load
from headrace.observe.rows import read_rows

ROOT = Path(__file__).resolve().parents[1]


def training(preset: str, overrides: list[str], seed: int) -> float:
    """Steps per second of a whole `headrace train`, from its first version to its last."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "headrace.launch.cli", "train", preset, "--run-dir", f"{folder}/run"]
        argv += ["--episodes", "0", "--set", f"run.seed={seed}"]
        for override in overrides:
            argv += ["--set", override]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        rows = read_rows(Path(folder) / "run" / "metrics.jsonl")
        first, last = rows[0], rows[-1]
        return (last["env_steps"] - first["env_steps"]) / (last["time_s"] - first["time_s"])


def training_through(info: broker.BrokerInfo, preset: str, overrides: list[str], seed: int) -> tuple[float, float]:
    """Steps per second through a broker, and the share of this machine's processor time that it used meanwhile."""
    process = psutil.Process(info.pid)
    before, began = sum(process.cpu_times()[:2]), time.perf_counter()
    topic = f"transport.url=kafka://{info.bootstrap}/ladder-{seed}"
    rate = training(preset, [*overrides, topic], seed)
    share = (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - began) / (os.cpu_count() or 1)
    return rate, share


def bare(overrides: list[str], steps: int, seed: int) -> float:
    """The reference script on the same backend."""
    backend = "envpool" if "task.backend=envpool" in overrides else "gymnasium"
    argv = [sys.executable, str(ROOT / "bench" / "bare.py"), "--steps", str(steps), "--seed", str(seed)]
    out = subprocess.run([*argv, "--backend", backend], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    found = re.search(r"([\d,]+) steps/s", out)
    assert found, out
    return float(found.group(1).replace(",", ""))


def climb(args: argparse.Namespace, info: broker.BrokerInfo | None) -> dict[str, list[float]]:
    """Rung -> steps per second, one a repeat."""
    config, steps = load(args.preset, args.overrides), [*args.overrides, f"run.total_steps={args.steps}"]
    rungs: dict[str, list[float]] = {}
    for repeat in range(args.repeats):
        for rung in RUNGS:
            rungs.setdefault(rung, []).append(actors_only(rung, config, args.seconds))
        rungs.setdefault("+ learner", []).append(training(args.preset, steps, repeat))
        if info is not None:
            rate, share = training_through(info, args.preset, steps, repeat)
            rungs.setdefault("+ Kafka", []).append(rate)
            rungs.setdefault("+ Kafka, broker counted out", []).append(rate / (1 - share))
        rungs.setdefault("bare script", []).append(bare(args.overrides, args.steps, repeat))
        print({name: round(values[-1]) for name, values in rungs.items()}, flush=True)
    return rungs


def report(rungs: dict[str, list[float]]) -> dict[str, float]:
    """Print medians; returns the ratios that have targets, medians of pairs of one repeat."""
    for name, values in rungs.items():
        print(f"{name:30}{statistics.median(values):10,.0f} steps/s")
    pairs = {"training / bare script": ("+ learner", "bare script")}
    for rung in ("+ Kafka", "+ Kafka, broker counted out"):
        if rung in rungs:
            pairs[f"{rung.removeprefix('+ ')} / local://"] = (rung, "+ learner")
    ratios = {
        name: statistics.median(a / b for a, b in zip(rungs[ours], rungs[theirs], strict=True))
        for name, (ours, theirs) in pairs.items()
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="lunarlander-ppo")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seconds", type=float, default=8.0, help="per rung without a learner")
    parser.add_argument("--steps", type=int, default=500_000, help="per rung with a learner")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kafka", action="store_true", help="also climb the Kafka rung")
    parser.add_argument("--json", metavar="NAME", help="keep the figures as bench/results/NAME.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        info = broker.start(Path(folder), port=0) if args.kafka else None
        try:
            rungs = climb(args, info)
        finally:
            if info is not None:
                broker.stop(Path(folder))
    ratios = report(rungs)
    if args.json:
        payload = {"preset": args.preset, "overrides": args.overrides, "steps_per_s": rungs, "ratios": ratios}
        hardware.save(args.json, payload)


if __name__ == "__main__":
    main()
