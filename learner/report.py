"""What the learner says of itself: one row about every second, from the versions made since the last one."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from headrace.common.metrics import Metrics
from headrace.learner.counters import Counters, TrainResult

PHASES = ("wait", "assemble", "update", "publish", "checkpoint")
#: Training returns are averaged over this many finished episodes, like everywhere in the field.
WINDOW_EPISODES = 100


class Report:
    """Collects what :meth:`Learner.step` returns; ``row`` empties it into one line of ``metrics.jsonl``."""

    def __init__(self, metrics: Metrics, counters: Counters, total_steps: int, learner_epoch: int) -> None:
        self._metrics, self._counters, self._total_steps = metrics, counters, total_steps
        self._life = {"learner_epoch": learner_epoch, "resumed_at_steps": counters.env_steps}
        self._returns: deque[float] = deque(maxlen=WINDOW_EPISODES)
        self._lengths: deque[int] = deque(maxlen=WINDOW_EPISODES)
        self._staleness: list[int] = []
        self._train: dict[str, float] = {}
        self._since_steps, self._since_s = counters.env_steps, counters.trained_s
        self._phases = self._phase_seconds()
        metrics.set("learner_epoch", learner_epoch)
        metrics.set("learner_progress_ratio", counters.env_steps / total_steps)

    @property
    def due_s(self) -> float:
        """Seconds of training since the last row."""
        return self._counters.trained_s - self._since_s

    def add(self, trained: TrainResult) -> None:
        for trajectory in trained.fragments:
            self._returns.extend(e.ret for e in trajectory.episodes)
            self._lengths.extend(e.length for e in trajectory.episodes)
            self._metrics.inc("learner_env_steps_total", trajectory.steps)
        for versions in trained.staleness:
            self._metrics.observe("learner_staleness_versions", versions)
        self._metrics.inc("learner_updates_total")
        self._staleness += trained.staleness
        self._train = dict(trained.metrics) or self._train

    def row(self) -> dict[str, Any]:
        """One row; rates and phases cover the time since the previous one."""
        counters, elapsed_s = self._counters, max(self.due_s, 1e-9)
        phases = self._phase_seconds()
        row = {
            "time_s": round(counters.trained_s, 3),
            "version": counters.version,
            "env_steps": counters.env_steps,
            "total_steps": self._total_steps,
            "episodes": counters.episodes,
            "return_mean": _mean(self._returns),
            "return_std": round(float(np.std(self._returns)), 4) if self._returns else None,
            "length_mean": _mean(self._lengths),
            "steps_per_s": round((counters.env_steps - self._since_steps) / elapsed_s, 1),
            "staleness_mean": _mean(self._staleness) or 0.0,
            "staleness_max": max(self._staleness, default=0),
            "rejected": dict(counters.rejected),
            "phases": {p: round((phases[p] - self._phases[p]) / elapsed_s, 4) for p in PHASES},
            "train": {name: float(value) for name, value in self._train.items()},
            **self._life,
        }
        self._show(row)
        self._since_steps, self._since_s, self._phases = counters.env_steps, counters.trained_s, phases
        self._staleness = []
        return row

    def _show(self, row: dict[str, Any]) -> None:
        self._metrics.set("learner_progress_ratio", row["env_steps"] / row["total_steps"])
        if row["return_mean"] is not None:
            self._metrics.set("learner_episode_return", row["return_mean"])
        for term, value in row["train"].items():
            self._metrics.set("learner_train", value, term=term)

    def _phase_seconds(self) -> dict[str, float]:
        return {p: self._metrics.value("learner_phase_seconds_total", phase=p) for p in PHASES}

    def refused(self) -> str:
        """What was refused so far, by reason, for people."""
        return ", ".join(f"{reason} {n}" for reason, n in self._counters.rejected.items())


def _mean(values: Any) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None
