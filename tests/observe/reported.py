"""Findings of a report, made up: two seeds that got there, and an agent that adapted."""

from __future__ import annotations

from headrace.observe.report.findings import Adapted, Findings, Seed
from headrace.observe.report.metrics import Point

HOSTILE = "<script>alert(1)</script><img src=\"http://evil/x\" onerror='a()'> $\\frac{"


def findings(
    *, word: str = "CartPole-v1", seeds: int = 2, source: str = "evaluations", adapted: bool = True
) -> Findings:
    def seed(number: int) -> Seed:
        curve = (Point(0, 20.0), Point(10_000, 100.0 + number), Point(30_000, 500.0), Point(100_000, 490.0))
        return Seed(f"runs/{word}-{number}", number, source, curve, 100_000, 100_000, 490.0)  # type: ignore[arg-type]

    after = (Point(0, 60.0), Point(512, 480.0))
    changed = tuple(Adapted(number, f"runs/{word}", 490.0, 475.0, after, 20_000) for number in range(seeds))
    return Findings(
        word, "PPO", 475.0, word, 22.0, word, 20, tuple(seed(number) for number in range(seeds)),
        f"task.kwargs={{{word}}}" if adapted else "", "the target", changed if adapted else (),
        {"task.env": word, "task.kwargs": word}, {"headrace": word},
    )  # fmt: skip
