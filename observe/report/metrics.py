"""The figures of docs/report.md as pure functions of numbers: no files, no environments.

A curve is a sequence of :class:`Point`, evaluations of one run in the order of their environment steps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["reached", "missed", "unknown"]


@dataclass(frozen=True, slots=True)
class Point:
    """The mean undiscounted return of a policy, and the environment steps it was trained on."""

    env_steps: int
    mean: float


def as_it_stands(points: Iterable[Point]) -> list[Point]:
    """Points in the order in which they were written, without those that a resume undid: a later one takes back every
    earlier one that is as far on or further."""
    kept: list[Point] = []
    for point in points:
        while kept and kept[-1].env_steps >= point.env_steps:
            kept.pop()
        kept.append(point)
    return kept


def steps_to(curve: Sequence[Point], goal: float) -> float:
    """Environment steps of the first evaluation whose mean return is at least ``goal``; infinite where none is."""
    return next((float(point.env_steps) for point in curve if point.mean >= goal), math.inf)


def normalised(value: float, floor: float, target: float) -> float:
    """Where ``value`` lies between ``floor`` (0) and ``target`` (1), held to that range."""
    return min(1.0, max(0.0, (value - floor) / (target - floor)))


def per_sample(curve: Sequence[Point], floor: float, target: float, steps: int) -> float | None:
    """The mean over the first ``steps`` environment steps of the normalised return: the area under the curve of
    normalised evaluations, which is straight between two of them, begins at (0, 0) where step 0 was not evaluated, and
    stays what it was after the last one. In [0, 1]; None where there is nothing to average."""
    if not curve or steps < 1:
        return None
    at = np.array([point.env_steps for point in curve], float)
    scores = np.array([normalised(point.mean, floor, target) for point in curve])
    if at[0] > 0:
        at, scores = np.insert(at, 0, 0.0), np.insert(scores, 0, 0.0)
    inside = at < steps
    at_end = np.interp(steps, at, scores)
    return float(np.trapezoid(np.append(scores[inside], at_end), np.append(at[inside], steps)) / steps)


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1); None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def median(values: Sequence[float]) -> float:
    """The middle value, of two the larger one: infinities are compared, never averaged."""
    return statistics.median_high(values)


def judge(value: float | None, limit: float, at_most: bool) -> Verdict:
    """Whether a figure is within its target; an infinite one misses it, None is not known."""
    if value is None:
        return "unknown"
    return "reached" if (value <= limit if at_most else value >= limit) else "missed"
