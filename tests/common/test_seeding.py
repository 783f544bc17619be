"""Streams depend on their names alone, go on where they were saved, and evaluation never meets a training seed."""

from __future__ import annotations

import json
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.errors import UsageError
from headrace.common.seeding import (
    evaluation_seeds,
    generator_state,
    reset_seeds,
    restore_generator,
    selection_seeds,
    stream,
)

names = st.lists(st.integers(0, 2**63) | st.text(max_size=5), max_size=3)
seeds = st.integers(0, 2**63)


def draw(rng: np.random.Generator) -> list[float]:
    return [float(x) for x in rng.random(4)]


@given(seeds, names, names)
def test_a_stream_is_fixed_by_its_names_and_no_other_is_like_it(
    seed: int, first: list[int | str], second: list[int | str]
) -> None:
    assert draw(stream(seed, *first)) == draw(stream(seed, *first))
    if first != second:
        assert draw(stream(seed, *first)) != draw(stream(seed, *second))
    assert draw(stream(seed, *first)) != draw(stream(seed + 1, *first))


@pytest.mark.parametrize(
    ("first", "second"), [((1, 12), (11, 2)), (("a", "bc"), ("ab", "c")), ((1,), ("1",)), ((), ("",))]
)
def test_names_do_not_run_together(first: tuple[int | str, ...], second: tuple[int | str, ...]) -> None:
    assert draw(stream(0, *first)) != draw(stream(0, *second))


def test_a_stream_is_the_same_in_every_process() -> None:
    code = "from headrace.common.seeding import stream; print(stream(7, 'act', 3).integers(1 << 62))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert int(other.stdout) == stream(7, "act", 3).integers(1 << 62) == 3552439182428509476


@given(st.integers(0, 50))
def test_a_saved_generator_goes_on_where_it_was(drawn: int) -> None:
    rng = stream(1, "x")
    rng.random(drawn)
    rng.integers(0, 9, dtype=np.uint32)  # leaves half of a 64-bit number for the next draw
    saved = json.loads(json.dumps(generator_state(rng)))
    again = restore_generator(saved)
    expected = [rng.integers(0, 9, size=5, dtype=np.uint32).tolist(), draw(rng), rng.normal()]
    assert [again.integers(0, 9, size=5, dtype=np.uint32).tolist(), draw(again), again.normal()] == expected


@given(seeds, names, st.integers(1, 50), st.integers(0, 2**20))
def test_nobody_is_evaluated_on_what_it_was_trained_on(seed: int, who: list[int | str], n: int, first: int) -> None:
    training, evaluation = reset_seeds(seed, *who, n=n), evaluation_seeds(n, first)
    assert len(training) == n
    assert len(set(evaluation)) == n
    assert 0 <= min(training) <= max(training) < 2**31 <= min(evaluation) <= max(evaluation) < 3 * 2**30
    selection = selection_seeds(n, first)
    assert len(set(selection)) == n
    assert 3 * 2**30 <= min(selection) <= max(selection) < 2**32, "nor is what is reported what was chosen by"


@pytest.mark.parametrize(("n", "first"), [(1, -1), (2, 2**30 - 1), (2**20, 2**30 - 2**20 + 1), (1, 2**70)])
def test_there_are_no_evaluation_seeds_among_those_of_others(n: int, first: int) -> None:
    assert evaluation_seeds(2, 2**30 - 2)[-1] == 3 * 2**30 - 1
    with pytest.raises(UsageError, match=r"there are those from 0 to 1,073,741,823"):
        evaluation_seeds(n, first)


def test_environments_take_the_seeds() -> None:
    env = gymnasium.make("CartPole-v1")
    try:
        shown = [env.reset(seed=seed)[0].tolist() for seed in (*evaluation_seeds(3), evaluation_seeds(1)[0])]
    finally:
        env.close()
    assert shown[0] == shown[3]
    assert shown[0] != shown[1] != shown[2]
