"""Greedy episodes for a report, each policy's played once: RUN/report/greedy.jsonl keeps their returns.

greedy = Greedy(config, run_dir, episodes=20)
greedy.of(run_dir / "snapshots" / "25600.safetensors")     Point(env_steps=25600, mean=...)
greedy.of(None)                                            the newest checkpoint's
greedy.random()                                            the mean return of random actions
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace.algorithms.base import Policy
from headrace.common.errors import UsageError
from headrace.common.seeding import evaluation_seeds, stream
from headrace.common.types import Weights
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.evaluate import load_weights, play
from headrace.launch.report.random_policy import UniformPolicy
from headrace.observe.report.metrics import Point

#: Where a report keeps what it made, in the run directory.
FOLDER = "report"
#: Episodes of the random policy: a floor should not move from report to report.
FLOOR_EPISODES = 100


class Greedy:
    """Plays the policies of one run in the task of ``config``."""

    def __init__(self, config: Config, run_dir: Path, episodes: int) -> None:
        self._config, self._run_dir, self._episodes = config, run_dir, episodes
        self._blueprint = Blueprint(config)
        self._path = run_dir / FOLDER / "greedy.jsonl"
        self._task = _digest(json.dumps(config.task.model_dump(mode="json"), sort_keys=True).encode())

    def of(self, path: Path | None) -> Point:
        """Of a snapshot or checkpoint; None: the newest checkpoint."""
        weights = load_weights(self._config, self._run_dir, path)
        if weights.env_steps is None:
            raise UsageError(f"{path}: does not say after how many environment steps the policy was so")

        def played() -> list[float]:
            policy: Policy = self._blueprint.policy()
            policy.load(weights)
            return play(self._config, policy, evaluation_seeds(self._episodes))

        return Point(weights.env_steps, _mean(self._once(_fingerprint(weights), self._episodes, played)))

    def random(self) -> float:
        """The mean return of uniformly random actions over 100 episodes."""

        def played() -> list[float]:
            policy = UniformPolicy(self._blueprint.spaces, stream(0, "random policy"))
            return play(self._config, policy, evaluation_seeds(FLOOR_EPISODES))

        return _mean(self._once("random", FLOOR_EPISODES, played))

    def _once(self, who: str, episodes: int, played: Callable[[], list[float]]) -> Sequence[float]:
        key = (who, self._task, episodes)
        if key not in self._kept:
            self._kept[key] = played()
            self._keep({"policy": who, "task": self._task, "returns": self._kept[key]})
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[tuple[str, str, int], Sequence[float]]:
        """What was played before; a line that is none of ours is as if it were not there."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return {}
        kept: dict[tuple[str, str, int], Sequence[float]] = {}
        for line in lines:
            try:
                row: Any = json.loads(line)
                returns = [float(value) for value in row["returns"]]
                kept[str(row["policy"]), str(row["task"]), len(returns)] = returns
            except (ValueError, KeyError, TypeError):
                continue
        return kept

    def _keep(self, row: dict[str, Any]) -> None:
        """A directory that cannot be written costs the next report some time, and this one nothing."""
        try:
            self._path.parent.mkdir(exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            print(f"{self._path}: not kept ({error.strerror})", file=sys.stderr)


def _fingerprint(weights: Weights) -> str:
    parts = [f"{name} {tensor.dtype} {tensor.shape} ".encode() + tensor.tobytes()
             for name, tensor in sorted(weights.tensors.items())]  # fmt: skip
    return _digest(b"".join(parts))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _mean(returns: Sequence[float]) -> float:
    return sum(returns) / len(returns)
