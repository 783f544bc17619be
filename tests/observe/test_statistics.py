"""The interquartile mean and its bootstrap interval, beside slow and obvious versions."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.observe.statistics import Estimate, estimate, interval, iqm, iqm_difference


def slow_iqm(scores: list[float]) -> float:
    left = sorted(scores)
    for _ in range(len(scores) // 4):
        left.remove(min(left))
        left.remove(max(left))
    return sum(left) / len(left)


def slow_interval(strata: list[list[float]], resamples: int, seed: int) -> tuple[float, float]:
    """Of the sum of the strata's interquartile means."""
    rng = np.random.default_rng(seed)
    drawn = [[[stratum[i] for i in row] for row in rng.integers(len(stratum), size=(resamples, len(stratum)))]
             for stratum in strata]  # fmt: skip
    values = sorted(sum(slow_iqm(stratum[k]) for stratum in drawn) for k in range(resamples))

    def quantile(q: float) -> float:
        at = q * (resamples - 1)
        below = int(at)
        return values[below] + (at - below) * (values[min(below + 1, resamples - 1)] - values[below])

    return quantile(0.025), quantile(0.975)


@pytest.mark.parametrize("n", range(1, 14))
def test_the_interquartile_mean_is_that_of_the_middle_half(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    assert iqm(scores) == pytest.approx(slow_iqm(scores.tolist()))


def test_what_lies_outside_the_middle_half_does_not_count() -> None:
    assert iqm(np.array([-1e9, 4.0, 5.0, 1e9])) == 4.5


def test_the_interval_is_that_of_the_slow_version() -> None:
    rng = np.random.default_rng(1)
    strata = [rng.normal(size=5), rng.normal(10.0, 3.0, size=8)]
    found = interval(lambda a, b: iqm(a) + iqm(b), strata, resamples=400, seed=3)
    assert found == pytest.approx(slow_interval([s.tolist() for s in strata], 400, 3))


def test_no_stratum_takes_the_place_of_another() -> None:
    assert interval(iqm_difference, [np.zeros(3), np.ones(4)]) == (1.0, 1.0)


def test_points_of_a_curve_are_estimated_each_by_itself() -> None:
    curves = np.random.default_rng(2).normal(size=(6, 5))
    low, high = interval(iqm, [curves], resamples=200)
    for k, point in enumerate(curves):
        assert interval(iqm, [point], resamples=200) == pytest.approx((low[k], high[k]))


def test_the_interval_covers_what_it_should() -> None:
    """Twenty normal scores, whose interquartile mean is 0 in the long run: 95 of 100 intervals or not many fewer (the
    percentile bootstrap is known to be a little narrow)."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        low, high = interval(iqm, [rng.normal(size=20)], resamples=500)
        covered += low <= 0 <= high
    assert 0.87 <= covered / 200 <= 0.99


def test_one_score_has_no_interval() -> None:
    assert estimate(iqm, [3.0]) == Estimate(3.0, None, None)
    assert estimate(iqm_difference, [3.0], [1.0, 2.0]) == Estimate(-1.5, None, None)
    assert str(estimate(iqm, [3.0])) == "3.0"
    assert str(estimate(iqm, [3.0, 3.0])) == "3.0 [3.0, 3.0]"
