"""What was found about the seeds of one config, and the figures that follow, each beside its target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.observe.report import metrics
from headrace.observe.report.metrics import Point, Verdict

#: The targets (docs/report.md).
STEPS_TO_TARGET, PER_SAMPLE, SPREAD, STEPS_TO_ADAPT = 50_000, 0.8, 0.15, 1_000
#: What a curve is made of, best first.
Source = Literal["evaluations", "snapshots", "training"]
SOURCES: Mapping[Source, str] = {
    "evaluations": "greedy evaluation during training",
    "snapshots": "greedy evaluation of snapshots",
    "training": "what actors report of their exploring policies, NOT a greedy evaluation",
}


@dataclass(frozen=True)
class Seed:
    """One run. ``curve``: the mean return at environment steps. ``env_steps``: trained on so far, of ``total_steps``.
    ``final``: the greedy return of the newest weights that were evaluated."""

    run_dir: str
    seed: int
    source: Source
    curve: tuple[Point, ...]
    env_steps: int
    total_steps: int
    final: float | None


@dataclass(frozen=True)
class Adapted:
    """What became of one seed's agent in a changed environment. ``before``: its greedy return in its own. ``curve``:
    in the changed one, over the environment steps since the change, up to the first at ``goal``; ``budget`` steps
    were trained (none where it was at the goal without). ``run_dir``: of that training, or else the agent's own."""

    seed: int
    run_dir: str
    before: float
    goal: float
    curve: tuple[Point, ...]
    budget: int

    @property
    def steps(self) -> float:
        """Infinite where the goal was not reached."""
        return metrics.steps_to(self.curve, self.goal)


@dataclass(frozen=True)
class Figure:
    """One figure beside its target. ``value``, ``per_seed``: infinite for "never", None for "not known"."""

    name: str
    title: str
    value: float | None
    limit: float
    at_most: bool
    unit: str
    per_seed: tuple[float | None, ...]
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        return metrics.judge(self.value, self.limit, self.at_most)

    def shown(self, value: float | None) -> str:
        """A value of this figure as people read it."""
        if value is None:
            return "not known"
        if math.isinf(value):
            return "never"
        return f"{value:,.0f}" if self.unit else f"{value:.3f}"

    @property
    def target(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:,g}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": _finite(self.value),
            "target": self.limit,
            "target_is": "at most" if self.at_most else "at least",
            "verdict": self.verdict,
            "unit": self.unit,
            "per_seed": [_finite(value) for value in self.per_seed],
            "note": self.note,
        }


@dataclass(frozen=True)
class Findings:
    """``floor``: a random policy's return; ``target``: the one at which the task counts as solved; where they are from
    is said beside. ``episodes``: of each greedy evaluation that the report made. ``change``: how the environment was
    changed; "" where it was not. ``made_by``: versions, commit and hardware, as far as runs say."""

    env: str
    algorithm: str
    target: float
    target_from: str
    floor: float
    floor_from: str
    episodes: int
    seeds: tuple[Seed, ...]
    change: str = ""
    goal_from: str = ""
    adapted: tuple[Adapted, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def horizon(self) -> int:
        """Environment steps that every seed was trained on."""
        return min(seed.env_steps for seed in self.seeds)

    @property
    def greedy(self) -> bool:
        """Whether all curves are greedy evaluations."""
        return all(seed.source != "training" for seed in self.seeds)

    def scores(self) -> list[float | None]:
        """Of each seed the mean normalised reward per sample."""
        return [metrics.per_sample(seed.curve, self.floor, self.target, self.horizon) for seed in self.seeds]

    def finals(self) -> list[float | None]:
        """Of each seed the normalised greedy return at its end."""
        return [None if s.final is None else metrics.normalised(s.final, self.floor, self.target) for s in self.seeds]

    def figures(self) -> list[Figure]:
        """In the order of docs/report.md."""
        return [self._steps_to_target(), *self._rewards(), self._steps_to_adapt()]

    def to_json(self) -> dict[str, Any]:
        return {
            "env": self.env,
            "algorithm": self.algorithm,
            "target_return": self.target,
            "target_from": self.target_from,
            "floor_return": self.floor,
            "floor_from": self.floor_from,
            "horizon_env_steps": self.horizon,
            "figures": [figure.to_json() for figure in self.figures()],
            "seeds": [self._seed_json(i) for i in range(len(self.seeds))],
            "change": self.change or None,
            "goal_from": self.goal_from or None,
            "adapted": [
                {"seed": a.seed, "run_dir": a.run_dir, "before": a.before, "goal": a.goal, "budget": a.budget,
                 "steps": _finite(a.steps), "curve": _curve_json(a.curve)}
                for a in self.adapted
            ],
        }  # fmt: skip

    def _seed_json(self, i: int) -> dict[str, Any]:
        seed = self.seeds[i]
        return {"run_dir": seed.run_dir, "seed": seed.seed, "source": seed.source, "env_steps": seed.env_steps,
                "total_steps": seed.total_steps, "final_return": seed.final, "final_normalised": self.finals()[i],
                "curve": _curve_json(seed.curve)}  # fmt: skip

    def _steps_to_target(self) -> Figure:
        found = [metrics.steps_to(s.curve, self.target) if s.curve else None for s in self.seeds]
        known = [steps for steps in found if steps is not None]
        note = f"{sum(map(math.isfinite, known))} of {len(self.seeds)} seeds got there"
        if not self.greedy:
            note += "; judged by what actors report, not by greedy evaluation"
        value = metrics.median(known) if len(known) == len(found) else None
        return Figure("steps_to_target", "Environment steps to the target return", value, STEPS_TO_TARGET, True,
                      "steps", tuple(found), note)  # fmt: skip

    def _rewards(self) -> list[Figure]:
        scores = self.scores()
        known = [score for score in scores if score is not None]
        mean = sum(known) / len(known) if len(known) == len(scores) else None
        spread = metrics.spread(known) if len(known) == len(scores) else None
        seen = "" if self.greedy else "; by what actors report"
        per_seed = tuple(scores)
        note = "needs two seeds or more" if len(scores) < 2 else f"over {len(scores)} seeds"
        return [
            Figure("reward_per_sample", "Mean normalised reward per sample", mean, PER_SAMPLE, False, "", per_seed,
                   f"over the first {self.horizon:,} steps{seen}"),
            Figure("spread_over_seeds", "Standard deviation over seeds", spread, SPREAD, True, "", (), note + seen),
        ]  # fmt: skip

    def _steps_to_adapt(self) -> Figure:
        steps = [adapted.steps for adapted in self.adapted]
        if not steps:
            note = "not asked: give a change of the environment by --adapt"
        else:
            undisturbed = sum(value == 0 for value in steps)
            note = f"{sum(map(math.isfinite, steps))} of {len(steps)} seeds within {self.adapted[0].budget:,} steps"
            note += f", {undisturbed} without learning" if undisturbed else ""
        return Figure("steps_to_adapt", "Environment steps to adapt", metrics.median(steps) if steps else None,
                      STEPS_TO_ADAPT, True, "steps", tuple(steps), note)  # fmt: skip


def _curve_json(curve: Sequence[Point]) -> list[dict[str, float]]:
    return [{"env_steps": point.env_steps, "mean": point.mean} for point in curve]


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
