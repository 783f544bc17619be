"""What one actor costs: resident memory, and the time from its start to its first fragment.

    headrace paramserver (a process) -> headrace actor (the process measured) -> local:// -> this process, which reads
    every fragment and publishes a new version per ``fragments`` of them, as a learner would

    python bench/actor.py [--preset lunarlander-ppo] [--envs 16] [--repeats 5] [--json actor]

Resident memory is the largest seen in the second half of the run. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from hardware import ROOT, save
from rungs import random_weights

from headrace.common.metrics import Metrics
from headrace.common.transport import open_source
from headrace.common.types import Weights
from headrace.common.weights.base import Progress
from headrace.common.weights.grpc import GrpcPublisher
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.load import load

RSS_TARGET_MB, FIRST_TARGET_S = 120.0, 1.5
#: Nobody waits longer for a fragment; what takes so long has died.
DEADLINE_S = 60.0


def role(name: str, config: Path, log: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "headrace.launch.cli", name, "--config", str(config)]
    with log.open("ab") as file:
        return subprocess.Popen(argv, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})


def measure(config: Config, folder: Path, seconds: float) -> dict[str, Any]:
    """One actor from its start to its end."""
    blueprint, log, metrics = Blueprint(config), folder / "log", Metrics("learner")
    (folder / "config.toml").write_text(config.to_toml())
    server = role("paramserver", folder / "config.toml", log)
    publisher = GrpcPublisher(config.weights.address, config.run.id, "", metrics)
    source = open_source(
        config.transport.url, limits=blueprint.limits, metrics=metrics, dead_letter=folder / "dead", group="actor"
    )
    weights = random_weights(blueprint)
    publisher.publish(weights, progress(0, blueprint))
    publisher.flush(DEADLINE_S)  # the server is up
    began = time.perf_counter()
    actor = role("actor", folder / "config.toml", log)
    try:
        first_s, first_cpu_s, version, steps, samples = 0.0, 0.0, 0, 0, []
        while not first_s or time.perf_counter() - began < first_s + seconds:
            received = source.get(timeout_s=0.05)
            if actor.poll() is not None or time.perf_counter() - began > DEADLINE_S + seconds:
                raise SystemExit(f"no actor:\n{log.read_text()[-3000:]}")
            if received is None:
                continue
            if not first_s:
                first_s, first_cpu_s = time.perf_counter() - began, sum(psutil.Process(actor.pid).cpu_times()[:2])
            version, steps = version + 1, steps + received.trajectory.steps
            publisher.publish(Weights(weights.run_id, 1, version, weights.tensors), progress(version, blueprint))
            samples.append((time.perf_counter() - began, psutil.Process(actor.pid).memory_info().rss / 1e6))
        maps = Path(f"/proc/{actor.pid}/maps").read_text()
        return {
            "first_fragment_s": round(first_s, 3),
            "rss_mb": round(max(mb for at, mb in samples if at > first_s + seconds / 2), 1),
            "torch_loaded": "libtorch" in maps,
            "first_fragment_cpu_s": round(first_cpu_s, 2),
            "steps_per_s": round(steps / (samples[-1][0] - first_s)),
        }
    finally:
        source.close()
        publisher.close()
        for process in (actor, server):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def progress(version: int, blueprint: Blueprint) -> Progress:
    """As the learner counts, with one fragment a version."""
    return Progress(version + 1 + blueprint.config.learner.max_staleness, version, version)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="lunarlander-ppo", help="policy and environment (default %(default)s)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--envs", type=int, default=16, help="environments of the actor (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of steady state, per repeat (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", metavar="NAME", default="actor", help="bench/results/NAME.json (default %(default)s)")
    args = parser.parse_args()
    overrides = [*args.overrides, "actors.processes=1", "actors.workers=1", f"actors.envs={args.envs}"]
    rows = []
    for repeat in range(args.repeats):
        with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
            addresses = [f'transport.url="local://{folder}/t"', f'weights.address="unix:{folder}/w"']
            config = load(args.preset, [*overrides, *addresses, f'run.id="actor-{os.getpid()}"'])
            rows.append(measure(config, Path(folder), args.seconds))
        print(f"[{repeat + 1}/{args.repeats}] {rows[-1]}", flush=True)
    found = {
        "rss_mb": max(row["rss_mb"] for row in rows),
        "first_fragment_s": statistics.median(row["first_fragment_s"] for row in rows),
        "torch_loaded": any(row["torch_loaded"] for row in rows),
    }
    met = found["rss_mb"] <= RSS_TARGET_MB and found["first_fragment_s"] < FIRST_TARGET_S and not found["torch_loaded"]
    targets = {"rss_mb": RSS_TARGET_MB, "first_fragment_s": FIRST_TARGET_S, "torch_loaded": False}
    path = save(
        args.json, {"preset": args.preset, "envs": args.envs, **found, "targets": targets, "met": met, "runs": rows}
    )
    torch_words = "LOADED" if found["torch_loaded"] else "not loaded"
    print(f"resident {found['rss_mb']:.0f} MB, first fragment after {found['first_fragment_s']:.2f} s (median), torch "
          f"{torch_words}; {'met' if met else 'NOT met'}; {path.relative_to(ROOT)}")  # fmt: skip
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
