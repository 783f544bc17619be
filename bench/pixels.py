"""Does it learn from pixels what no single frame shows? Frames of 84x84 through the Nature CNN, stacked and single.

    per seed: headrace train bench/keeper.toml -> headrace evaluate RUN --episodes 200, with frame_stack 4 and then 1

    python bench/pixels.py [--seeds 1 2 3] [--single-seeds 1 2 3] [--set SECTION.KEY=VALUE]

Keeper (tests/tasks/pixel_envs.py) returns 1 for a catch and -1 for a miss. A seed has solved it with a mean of 0.9, 19
of 20 caught. Kept beside the returns: what playing at random comes to, what a step is on the wire, stacked and single,
and the most memory an actor took (each loads the same libraries: no torch). Run it in the repository's root. Exit code
1 where a stacked seed has not solved it, or a single one has.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import psutil
from hardware import ROOT, relative, save
from learning import evaluate, train

from headrace.algorithms.base import PolicyOutput
from headrace.common.seeding import evaluation_seeds
from headrace.launch.build import Blueprint, plan
from headrace.launch.evaluate import play
from headrace.launch.load import load
from headrace.observe import endpoints

PRESET, SOLVED, EPISODES, STACK = str(ROOT / "bench" / "keeper.toml"), 0.9, 200, 4


class AtRandom:
    """Any action, as likely as any other."""

    def act(self, obs: np.ndarray, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        return PolicyOutput(rng.integers(8, size=len(obs)), {})


class ActorMemory(threading.Thread):
    """Looks every second at what the actors of a run have resident; ``most`` MB."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(daemon=True)
        self.run_dir, self.most, self._over = run_dir, 0.0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(1.0):
            for process in endpoints.read(self.run_dir) if self.run_dir.is_dir() else []:
                if process.role == "actor" and psutil.pid_exists(process.pid):
                    self.most = max(self.most, psutil.Process(process.pid).memory_info().rss / 1e6)

    def stop(self) -> float:
        self._over.set()
        self.join()
        return round(self.most, 1)


def learn(frames: int, seed: int, overrides: list[str], folder: Path) -> dict[str, Any]:
    run_dir = folder / f"{frames}-{seed}"
    memory = ActorMemory(run_dir)
    memory.start()
    row = train(PRESET, [*overrides, f"run.seed={seed}", f"algorithm.frame_stack={frames}"], run_dir)
    row["actor_mb_at_most"] = memory.stop()
    row |= {"frame_stack": frames, "seed": seed, **evaluate(run_dir, EPISODES)}
    print(f"{frames} frames, seed {seed}: {row['mean']:.3f} after {row['steps']:,} steps in {row['train_s']:.0f} s, "
          f"actors {row['actor_mb_at_most']} MB at most", flush=True)  # fmt: skip
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    means = [row["mean"] for row in rows]
    return {
        "seeds": [row["seed"] for row in rows],
        "mean": round(fmean(means), 3),
        "spread": round(pstdev(means), 3),
        "lowest": round(min(means), 3),
        "highest": round(max(means), 3),
        "train_s_mean": round(fmean(row["train_s"] for row in rows), 1),
    }


def wire(overrides: list[str]) -> dict[str, float]:
    """Bytes of a fragment by its arrays, a step; and what they would be if frames were sent stacked."""
    blueprint = Blueprint(load(PRESET, overrides))
    held, shape = plan(blueprint)["fragment_bytes_about"], blueprint.spaces.obs_shape
    actors, frame = blueprint.config.actors, int(np.prod(shape))
    steps = actors.envs * actors.fragment_steps
    stacked = STACK * frame * (steps + actors.envs)
    return {"frame_bytes": frame, "bytes_a_step": round(held / steps), "stacked_bytes_a_step": round(stacked / steps)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="with stacked frames")
    parser.add_argument("--single-seeds", type=int, nargs="*", default=[1, 2, 3], metavar="N", help="with single ones")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument(
        "--json", metavar="NAME", default="pixels", help="bench/results/NAME.json (default %(default)s)"
    )
    args = parser.parse_args()
    at_random = play(load(PRESET, args.overrides), AtRandom(), evaluation_seeds(2000))  # type: ignore[arg-type]
    rows: dict[int, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        for frames, seeds in ((STACK, args.seeds), (1, args.single_seeds)):
            rows[frames] = [learn(frames, seed, args.overrides, Path(folder)) for seed in seeds]
    caught = round(float(np.mean(at_random) + 1) / 2, 3)
    found = {
        "solved_at": SOLVED,
        "episodes": EPISODES,
        "random": {"mean": round(float(np.mean(at_random)), 3), "share_of_the_range": caught},
        "wire": wire(args.overrides),
        "actor_mb_at_most": max(row["actor_mb_at_most"] for row in rows[STACK]),
        **{name: summary(rows[k]) for name, k in (("stacked", STACK), ("single", 1)) if rows[k]},
        "runs": [*rows[STACK], *rows[1]],
    }
    print({name: value for name, value in found.items() if name != "runs"})
    print(relative(str(save(args.json, found))))
    solved = all(row["mean"] >= SOLVED for row in rows[STACK]) and all(row["mean"] < SOLVED for row in rows[1])
    return 0 if solved else 1


if __name__ == "__main__":
    raise SystemExit(main())
