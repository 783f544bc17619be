"""From `headrace train` to its first version, several installations side by side.

    python bench/start.py --name start --side old OLD/.venv/bin/headrace --side new .venv/bin/headrace

Every repeat starts each side in turn, nothing else running; a version is there when its row is in metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from hardware import save
from side_by_side import settle

_LOOK_S = 0.005


def start_s(command: str, preset: str, settings: list[str]) -> float:
    """Seconds to the first version of one run."""
    words = [word for setting in settings for word in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        argv = [command, "train", preset, *words, "--run-dir", str(run), "--episodes", "0", "--no-gif"]
        began = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=folder) as process:
            while not _has_row(run / "metrics.jsonl"):
                if process.poll() is not None and not _has_row(run / "metrics.jsonl"):
                    raise RuntimeError(f"{argv} ended with {process.returncode} before its first version")
                time.sleep(_LOOK_S)
            found = time.perf_counter() - began
    return found


def _has_row(path: Path) -> bool:
    try:
        return b"\n" in path.read_bytes()
    except OSError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="lunarlander-ppo")
    parser.add_argument("--name", help="of the file in bench/results/ (default: keep nothing)")
    parser.add_argument("--side", nargs="+", action="append", required=True, metavar="NAME HEADRACE SECTION.KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name, *_ in args.side}
    for _ in range(args.repeats):
        for name, command, *settings in args.side:
            settle()
            short = ["run.total_steps=20_000", *settings]
            seconds[name].append(round(start_s(command, args.preset, short), 3))
    base = seconds[next(iter(seconds))]
    found = {
        name: {"median_s": round(median(mine), 3), "worst_s": max(mine),
               "ratio": round(median(a / b for a, b in zip(mine, base, strict=True)), 3)}
        for name, mine in seconds.items()
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if args.name:
        print(save(args.name, {"preset": args.preset, "sides": found, "seconds": seconds}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
