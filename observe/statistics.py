"""What a few runs say: the interquartile mean and an interval for it by the stratified bootstrap, after Agarwal et al.,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021 (sections 4.1 and 4.3).

Scores are arrays [..., N], a run (or an episode) each along the last axis; what stands before it, points of a curve for
instance, is carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic and the interval around it; None where a single score says nothing of how others would fall."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        return {"iqm": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]"
        return f"{self.value:.1f}{interval}"


def iqm(scores: Scores) -> Any:
    """The mean of the middle half: the lowest and the highest quarter of the N scores are left out, each rounded down
    (fewer than four: the mean). Float64 [...]."""
    n = scores.shape[-1]
    cut = n // 4
    return np.sort(scores, axis=-1)[..., cut : n - cut].mean(axis=-1)


def iqm_difference(before: Scores, after: Scores) -> Any:
    """By how much the interquartile mean of ``after`` is higher."""
    return iqm(after) - iqm(before)


def interval(
    statistic: Callable[..., Any], strata: Sequence[Scores], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Any, Any]:
    """The percentile interval that holds :data:`CONFIDENCE` of ``statistic(*resampled strata)``. Each stratum is
    resampled within itself, with replacement: no side of a comparison takes the place of another. Float64 [...] twice.
    """
    rng = np.random.default_rng(seed)
    drawn = [s[..., rng.integers(s.shape[-1], size=(resamples, s.shape[-1]))] for s in strata]
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(statistic(*drawn), (outside, 1 - outside), axis=-1)
    return low, high


def estimate(statistic: Callable[..., Any], *strata: Sequence[float]) -> Estimate:
    """``statistic(*strata)`` with its interval. Each stratum holds one score at least."""
    arrays = [np.asarray(scores, np.float64) for scores in strata]
    value = float(statistic(*arrays))
    if min(map(len, arrays)) < 2:
        return Estimate(value, None, None)
    low, high = interval(statistic, arrays)
    return Estimate(value, float(low), float(high))
