"""Runs of lease numbers against a plain set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.common.lease_set import LeaseSet

NUMBERS = st.lists(st.integers(0, 40), max_size=60)


@given(NUMBERS)
def test_it_is_the_set_it_stands_for(numbers: list[int]) -> None:
    made, plain = LeaseSet(), set()
    for number in numbers:
        made.add(number)
        plain.add(number)
    assert {n for n in range(-1, 45) if n in made} == plain
    assert {n for first, end in made for n in range(first, end)} == plain
    assert all(one[1] < other[0] for one, other in zip(made.runs, made.runs[1:], strict=False)), "runs do not touch"
    assert LeaseSet(made.runs) == made == made.copy()


@given(NUMBERS, st.integers(0, 5), st.integers(1, 5))
def test_first_missing(numbers: list[int], start: int, step: int) -> None:
    made = LeaseSet()
    for number in numbers:
        made.add(number)
    expected = next(n for n in range(start, 200, step) if n not in set(numbers))
    assert made.first_missing(start, step) == expected


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=9))
def test_runs_from_outside_may_overlap_and_be_empty(runs: list[tuple[int, int]]) -> None:
    assert {n for first, end in LeaseSet(runs) for n in range(first, end)} == {n for a, b in runs for n in range(a, b)}


def test_beyond_its_bound_the_oldest_holes_close() -> None:
    made = LeaseSet(max_runs=3)
    for number in range(0, 20, 2):
        made.add(number)
    assert made.runs == ((0, 15), (16, 17), (18, 19))
