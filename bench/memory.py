"""Does memory stay flat? Trains without an end, and looks at every process's resident memory every few seconds.

    headrace train PRESET (real processes) -> RSS of each role every 5 s -> slope and largest deviation after a minute

    python bench/memory.py [--minutes 10] [--preset lunarlander-ppo] [--json memory]

Exit code 1 where learner or parameter server moved by more than 5 % of what they had after the first minute.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from hardware import relative, save

from headrace.observe import endpoints
from headrace.observe.rows import last_row

EVERY_S, TARGET = 5.0, 0.05
#: Roles the target is for; actors are shown beside them.
HELD = ("learner", "paramserver")


def watch(run_dir: Path, train: subprocess.Popen[bytes], seconds: float) -> dict[str, list[tuple[float, float]]]:
    """(seconds since the first look, MB resident) per process, named role-index."""
    seen: dict[str, list[tuple[float, float]]] = {}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if train.poll() is not None:
            raise SystemExit(f"headrace train ended by itself (exit code {train.returncode}); see {run_dir}/logs")
        for process in endpoints.read(run_dir):
            try:
                mb = psutil.Process(process.pid).memory_info().rss / 1e6
            except psutil.NoSuchProcess:  # died; its successor announces itself
                continue
            seen.setdefault(f"{process.role}-{process.index}", []).append((time.monotonic() - began, mb))
        print(
            f"{time.monotonic() - began:5.0f} s  " + "  ".join(f"{k} {v[-1][1]:.1f}" for k, v in seen.items()),
            flush=True,
        )
        time.sleep(EVERY_S)
    return seen


def wait_for_rows(run_dir: Path, train: subprocess.Popen[bytes], timeout_s: float = 120.0) -> None:
    """Until the learner has written a row: everything is up and has trained."""
    deadline = time.monotonic() + timeout_s
    while last_row(run_dir / "metrics.jsonl") is None:
        if train.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"no training within {timeout_s:.0f} s; see {run_dir}/logs")
        time.sleep(0.2)


def judge(samples: list[tuple[float, float]], warmup_s: float) -> dict[str, Any]:
    """Slope (MB a minute, least squares) and the largest deviation from the first sample after ``warmup_s``."""
    at, mb = np.array([s for s in samples if s[0] >= warmup_s]).T
    return {
        "after_warmup_mb": round(float(mb[0]), 1),
        "last_mb": round(float(mb[-1]), 1),
        "slope_mb_per_minute": round(float(np.polyfit(at / 60, mb, 1)[0]), 3),
        "largest_deviation": round(float(np.abs(mb / mb[0] - 1).max()), 4),
        "samples": [(round(t, 1), round(m, 1)) for t, m in samples],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="lunarlander-ppo", help="default %(default)s")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--minutes", type=float, default=10.0, help="watched, in all (default %(default)s)")
    parser.add_argument("--warmup-s", type=float, default=60.0, help="seconds left out (default %(default)s)")
    parser.add_argument(
        "--json", metavar="NAME", default="memory", help="bench/results/NAME.json (default %(default)s)"
    )
    args = parser.parse_args()
    if args.warmup_s + 2 * EVERY_S > 60 * args.minutes:
        parser.error(f"--minutes {args.minutes:g} leaves nothing after --warmup-s {args.warmup_s:g}")
    sets = [word for o in [*args.overrides, "run.total_steps=1_000_000_000_000"] for word in ("--set", o)]
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        run_dir = Path(folder) / "run"
        argv = [sys.executable, "-m", "headrace.launch.cli", "train", args.preset, "--run-dir", str(run_dir)]
        train = subprocess.Popen([*argv, "--episodes", "0", *sets], stdout=subprocess.DEVNULL)
        try:
            wait_for_rows(run_dir, train)
            seen = watch(run_dir, train, 60 * args.minutes)
            row = last_row(run_dir / "metrics.jsonl")
        finally:
            train.send_signal(signal.SIGINT)
            train.wait(120)
    assert row is not None
    found = {name: judge(samples, args.warmup_s) for name, samples in seen.items()}
    met = all(found[f"{role}-0"]["largest_deviation"] <= TARGET for role in HELD)
    trained = {key: row[key] for key in ("env_steps", "version", "time_s", "rejected")}
    payload = {"preset": args.preset, "minutes": args.minutes, "warmup_s": args.warmup_s, "target": TARGET, "met": met}
    path = save(args.json, {**payload, "trained": trained, "processes": found})
    for name, f in found.items():
        print(f"{name}: {f['after_warmup_mb']} MB after {args.warmup_s:.0f} s, {f['last_mb']} MB at the end, "
              f"{f['slope_mb_per_minute']:+.3f} MB a minute, off by at most {f['largest_deviation']:.1%}")  # fmt: skip
    print(f"{'met' if met else 'NOT met'} over {row['env_steps']:,} steps; {relative(str(path))}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
