"""A directory of runs that differ by nothing but their seed, as `headrace train --seeds` leaves it.

common.toml     the settings all of them have, run.seed aside
seeds.json      which seeds and how many greedy episodes each; what became of every one, and of all together
seed-K/         the whole run directory of each
logs/seed-K.log what its training said
seeds.png       the curves, with the bootstrap interval of their interquartile mean
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.common import durable
from headrace.common.errors import UsageError
from headrace.launch.config import Config
from headrace.launch.load import load
from headrace.launch.run_files import CONFIG, RESULT
from headrace.learner.checkpoint_reader import read_json
from headrace.observe.statistics import Estimate, estimate, iqm

COMMON, SEEDS, PICTURE = "common.toml", "seeds.json", "seeds.png"
DONE = "done"
_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class SeedsDir:
    """``seeds`` in the order they are trained in, ``episodes``: greedy ones at the end of each run."""

    path: Path
    seeds: tuple[int, ...]
    episodes: int

    def run_dir(self, seed: int) -> Path:
        return self.path / f"seed-{seed}"

    def log(self, seed: int) -> Path:
        return self.path / "logs" / f"seed-{seed}.log"

    def begun(self, seed: int) -> bool:
        return (self.run_dir(seed) / CONFIG).is_file()

    def done(self, seed: int) -> bool:
        """A run's result is the last that it writes."""
        return (self.run_dir(seed) / RESULT).is_file()

    def config(self) -> Config:
        return load(str(self.path / COMMON))

    def finished_runs(self) -> list[Path]:
        return [self.run_dir(seed) for seed in self.seeds if self.done(seed)]

    def begin(self, config: Config) -> None:
        """Write the settings and what is to be done. Raises OSError."""
        (self.path / "logs").mkdir(exist_ok=True)
        durable.replace_file(self.path / COMMON, config.to_toml().encode(), mode=_OWNER_ONLY)
        self.keep(self.outcome({}))

    def keep(self, said: Mapping[str, Any]) -> None:
        """Write seeds.json anew. Raises OSError."""
        durable.replace_file(self.path / SEEDS, (json.dumps(said, indent=2) + "\n").encode())

    def outcome(self, states: Mapping[int, str]) -> dict[str, Any]:
        """What became of the seeds so far. ``states``: of those that are not done, where they are known."""
        runs = [{"seed": seed, **self._outcome(seed, states)} for seed in self.seeds]
        over_seeds = evaluation_over([run["mean"] for run in runs if run.get("mean") is not None])
        return {"seeds": list(self.seeds), "episodes": self.episodes, "runs": runs, "evaluation": over_seeds}

    def _outcome(self, seed: int, states: Mapping[int, str]) -> dict[str, Any]:
        if not self.done(seed):
            return {"state": states.get(seed, "stopped" if self.begun(seed) else "not begun")}
        result = read_result(self.run_dir(seed))
        told = {"state": DONE, "env_steps": result["env_steps"], "train_s": result["train_s"]}
        if (found := result["evaluation"]) is None:
            return told
        return told | {"mean": found["mean"], "interval95": found["interval95"], "lowest": min(found["returns"])}


def evaluation_over(means: Sequence[float]) -> dict[str, Any] | None:
    """What greedy evaluations come to over seeds, from the mean return of each; None where there was none."""
    if not means:
        return None
    found: Estimate = estimate(iqm, means)
    return {**found.to_json(), "mean": sum(means) / len(means), "lowest_seed": min(means), "seeds": len(means)}


def is_seeds_dir(path: Path) -> bool:
    return (path / SEEDS).is_file()


def open_seeds(path: Path) -> SeedsDir:
    """A directory that is there. Raises :class:`UsageError` where it is damaged."""
    said = read_json(path / SEEDS, seeds=list, episodes=int)
    if said is None:
        raise UsageError(f"{path} is no directory of seeds: it holds no {SEEDS}")
    return SeedsDir(path, tuple(said["seeds"]), said["episodes"])


def read_result(run_dir: Path) -> dict[str, Any]:
    """What a run's result.json holds, with ``evaluation`` None where nothing was evaluated, or it has not ended. Raises
    :class:`UsageError` if damaged."""
    found = read_json(run_dir / RESULT, env_steps=int, train_s=(int, float))
    return {"evaluation": None, **(found or {})}
