"""When did a run first reach a greedy mean return of R? Reads the weight snapshots that a run directory keeps
(``run.snapshot_every_steps``):

    RUN/snapshots/index.jsonl          one row a snapshot: {"steps": 25600, "time_s": 1.234}
    RUN/snapshots/25600.safetensors    the acting weights: pi.0.weight [in, out], pi.0.bias, ..., obs_mean, obs_scale

and applies the rule of greedy.py, the same for every contestant of the side-by-side run. The time of a snapshot is by
the clock on the wall, from the dates of the files: what the learner does between its steps counts too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from greedy import Array, first_pass
from safetensors.numpy import load_file


def snapshots(run: Path) -> Iterator[tuple[int, float, Mapping[str, Array]]]:
    """(steps, seconds, tensors) of each snapshot in the order of training. Seconds: the learner's own count or the
    wall clock since the snapshot at step 0, whichever is larger."""
    rows = [json.loads(line) for line in (run / "snapshots" / "index.jsonl").read_text().splitlines()]
    for row in sorted(rows, key=lambda row: int(row["steps"])):
        path = run / "snapshots" / f"{row['steps']}.safetensors"
        yield int(row["steps"]), max(float(row["time_s"]), since_start_s(run, path)), load_file(path)


def since_start_s(run: Path, path: Path) -> float:
    """Seconds between the snapshot at step 0 and the last write to ``path``; 0 where there is no snapshot at step 0."""
    start = run / "snapshots" / "0.safetensors"
    return path.stat().st_mtime - start.stat().st_mtime if start.exists() else 0.0


def time_to(run: Path, threshold: float, env_id: str = "LunarLander-v3") -> dict[str, Any]:
    """The result of :func:`greedy.first_pass` for a run directory."""
    return first_pass(snapshots(run), threshold, env_id)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--threshold", type=float, default=200.0, metavar="R")
    parser.add_argument("--env", default="LunarLander-v3")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there")
    args = parser.parse_args()
    if not (args.run / "snapshots" / "index.jsonl").is_file():
        parser.error(f"{args.run}: no snapshots/index.jsonl; train with --set run.snapshot_every_steps=25000")
    result = time_to(args.run, args.threshold, args.env)
    words = f"{args.threshold:g} reached" if result["passed"] else f"{args.threshold:g} NOT reached"
    print(f"{words}: {result['greedy_mean']:.0f} after {result['steps']:,} steps, {result['time_s']:.1f} s")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
