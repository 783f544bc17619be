"""The figures of docs/report.md against slow, obvious versions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.observe.report.metrics import (
    Point,
    as_it_stands,
    judge,
    median,
    normalised,
    per_sample,
    spread,
    steps_to,
)

#: A busy machine is slow to draw.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
RETURNS = st.floats(-100, 300, allow_nan=False)
CURVES = st.lists(st.tuples(st.integers(0, 60), RETURNS), max_size=8, unique_by=lambda point: point[0]).map(
    lambda points: [Point(*point) for point in sorted(points)]
)


def slow_per_sample(curve: Sequence[Point], floor: float, target: float, steps: int) -> float:
    """Sample by sample: each counts what the straight line between its neighbours says in its middle."""
    known = {point.env_steps: min(1.0, max(0.0, (point.mean - floor) / (target - floor))) for point in curve}
    known.setdefault(0, 0.0)
    total = 0.0
    for sample in range(steps):
        middle = sample + 0.5
        before = max(at for at in known if at <= middle)
        after = min((at for at in known if at >= middle), default=None)
        if after is None:
            total += known[before]
        else:
            total += known[before] + (known[after] - known[before]) * (middle - before) / (after - before)
    return total / steps


@patiently
@given(CURVES.filter(bool), st.integers(1, 80))
def test_reward_per_sample_is_that_of_every_sample(curve: list[Point], steps: int) -> None:
    found = per_sample(curve, -20.0, 200.0, steps)
    assert found == pytest.approx(slow_per_sample(curve, -20.0, 200.0, steps))
    assert 0 <= found <= 1


def test_reward_per_sample_by_hand() -> None:
    """At the target from half of the run on, from a random policy's return at its beginning."""
    curve = [Point(0, 20.0), Point(50, 120.0), Point(100, 500.0)]
    assert per_sample(curve, 20.0, 120.0, 100) == pytest.approx(0.75)
    assert per_sample(curve[1:], 20.0, 120.0, 100) == pytest.approx(0.75), "not evaluated at 0: worth 0 there"
    assert per_sample(curve, 20.0, 120.0, 200) == pytest.approx(0.875), "it stays what it was"
    assert per_sample(curve, 20.0, 120.0, 25) == pytest.approx(0.25), "and what comes later does not count"
    assert per_sample([], 20.0, 120.0, 100) is None
    assert per_sample(curve, 20.0, 120.0, 0) is None


@patiently
@given(CURVES, RETURNS)
def test_steps_to_a_goal(curve: list[Point], goal: float) -> None:
    found = math.inf
    for point in reversed(curve):
        if point.mean >= goal:
            found = point.env_steps
    assert steps_to(curve, goal) == found


@patiently
@given(RETURNS, st.floats(-50, 0), st.floats(1, 100))
def test_normalised_is_a_share_held_to_its_range(value: float, floor: float, target: float) -> None:
    found = normalised(value, floor, target)
    if value <= floor:
        assert found == 0
    elif value >= target:
        assert found == 1
    else:
        assert floor + found * (target - floor) == pytest.approx(value)


@patiently
@given(st.lists(RETURNS, max_size=6))
def test_spread_is_the_root_of_the_mean_squared_distance(values: list[float]) -> None:
    found = spread(values)
    if len(values) < 2:
        assert found is None
        return
    mean = sum(values) / len(values)
    assert found == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)), abs=1e-9)


@patiently
@given(st.lists(st.one_of(RETURNS, st.just(math.inf)), min_size=1, max_size=6))
def test_median_is_a_value_with_half_of_them_on_either_side(values: list[float]) -> None:
    found = median(values)
    assert found in values
    assert sum(v <= found for v in values) >= len(values) / 2
    assert sum(v >= found for v in values) >= len(values) / 2


def test_of_two_seeds_the_one_that_never_got_there_counts() -> None:
    assert median([10_000.0, math.inf]) == math.inf


@patiently
@given(st.lists(st.integers(0, 9), max_size=8))
def test_what_a_resume_undid_is_left_out(steps: list[int]) -> None:
    kept = [p.mean for p in as_it_stands(Point(s, float(i)) for i, s in enumerate(steps))]
    assert kept == [float(i) for i, s in enumerate(steps) if all(s < later for later in steps[i + 1 :])]


@pytest.mark.parametrize(
    ("value", "limit", "at_most", "verdict"),
    [
        (50_000, 50_000, True, "reached"),
        (50_001, 50_000, True, "missed"),
        (math.inf, 50_000, True, "missed"),
        (0.8, 0.8, False, "reached"),
        (0.799, 0.8, False, "missed"),
        (None, 0.8, False, "unknown"),
    ],
)
def test_verdicts(value: float | None, limit: float, at_most: bool, verdict: str) -> None:
    assert judge(value, limit, at_most) == verdict
