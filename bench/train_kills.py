"""kill -9 of `headrace train` at random moments, the first second included: what is left of it?

    python bench/train_kills.py [--kills 200] [--seed 0] [--json]      -> bench/results/train_kills.json

Each training is killed by pid after a random time, half of them within the first second, while its processes are being
started. Counted: processes left after 5 s (a learner may take longer for its last checkpoint, and has to end as well),
and sockets and folders under TMPDIR after the next start. Targets: 0 each. The same code is a test with fewer kills
(tests/launch/test_kill_train.py).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hardware import save

from tests.launch.killed_train import ENDED_S, Killed, kill_many, start


def measure(kills: int, seed: int) -> tuple[list[Killed], int]:
    """Every training, and how many things of them all the next start has left under TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        found = kill_many(folder, kills, random.Random(seed))
        following = start(folder, folder / "next", "cartpole-ppo", "--set", "run.total_steps=1024")
        if following.wait(120) != 0:
            raise SystemExit(f"the next training failed:\n{(folder / 'out').read_text()[-3000:]}")
        return found, len(list((folder / "tmp").iterdir()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="keep the result in bench/results/train_kills.json")
    args = parser.parse_args()
    found, folders = measure(args.kills, args.seed)
    result = {
        "kills": len(found),
        "within_the_first_second": sum(killed.after_s < 1.0 for killed in found),
        "with_processes_started": sum(killed.processes > 0 for killed in found),
        "processes_left": sum(len([role for role in killed.late if role != "learner"]) for killed in found),
        "learners_left": sum(killed.ended_after_s > 60.0 for killed in found),
        "sockets_and_folders_left": folders,
        "ended_after_s": {
            "median": statistics.median(killed.ended_after_s for killed in found),
            "worst": max(killed.ended_after_s for killed in found),
        },
    }
    processes, learners, slowest_s = result["processes_left"], result["learners_left"], result["ended_after_s"]["worst"]
    met = not (processes or learners or folders)
    print(f"{len(found)} kills: {processes} processes left after {ENDED_S:g} s, {learners} learners after 60 s, "
          f"{folders} sockets and folders; slowest end {slowest_s:.2f} s; {'met' if met else 'NOT met'}")  # fmt: skip
    if args.json:
        print(save("train_kills", {**result, "met": met, "runs": [asdict(killed) for killed in found]}))
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
