"""Fragments as rows and steps: against the slow version."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.common.errors import Rejected
from headrace.common.types import Array
from headrace.learner.chains import NONE, previous, transitions
from tests.learner.replayed import final_at, fragment, shown, slow_transitions


def rows_of(arrays: dict[str, Array]) -> Array:
    return np.concatenate([arrays["obs"].reshape(-1, 2), arrays["final_obs"]])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    T=st.integers(1, 9),
    B=st.integers(1, 4),
    n_step=st.integers(1, 12),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    p_end=st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    p_invalid=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_transitions_equal_the_slow_version(
    seed: int, T: int, B: int, n_step: int, gamma: float, p_end: float, p_invalid: float
) -> None:
    arrays = fragment(np.random.default_rng(seed), T, B, p_end, p_invalid)
    slow = slow_transitions(arrays, n_step, gamma)
    fast = transitions(arrays, n_step, gamma)
    assert {len(column) for column in fast.values()} == {len(slow)}
    obs, next_obs = (rows_of(arrays)[row] for row in (fast["row"], fast["row"] + fast["ahead"]))
    assert (np.diff(fast["row"]) > 0).all(), "replay forgets from the front"
    assert (fast["ahead"] > 0).all()
    for i, row in enumerate(slow):
        assert obs[i].tolist() == shown(arrays, row["at"]).tolist()
        assert next_obs[i].tolist() == shown(arrays, row["next_at"]).tolist()
        assert fast["action"][i] == row["action"]
        np.testing.assert_allclose(fast["reward"][i], row["reward"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(fast["discount"][i], row["discount"], rtol=1e-6)


def test_termination_stops_the_value_and_truncation_does_not() -> None:
    arrays = fragment(np.random.default_rng(0), 3, 2, p_end=0.0)
    arrays["reward"][:] = 1.0
    arrays["terminated"][1, 0], arrays["truncated"][1, 1] = True, True
    arrays["final_obs"] = np.array([[7.0, 7.0], [8.0, 8.0]], np.float32)
    found = transitions(arrays, n_step=3, gamma=0.5)
    assert found["reward"].tolist() == [1.5, 1.5, 1.0, 1.0, 1.0, 1.0]
    assert found["discount"].tolist() == [0.0, 0.25, 0.0, 0.5, 0.5, 0.5]
    next_obs = rows_of(arrays)[found["row"] + found["ahead"]]
    assert next_obs[:4, 0].tolist() == [7.0, 8.0, 7.0, 8.0]
    assert next_obs[4:].tolist() == arrays["obs"][3].tolist()  # the fragment's end cuts the window short


def test_what_was_before_a_row_is_of_the_same_episode() -> None:
    arrays = fragment(np.random.default_rng(0), 5, 2, p_end=0.0)
    arrays["terminated"][1, 0] = True
    arrays["final_obs"] = np.zeros((1, 2), np.float32)
    arrays["valid"] = np.ones((5, 2), bool)
    arrays["valid"][3, 1] = False  # spent on a reset
    before = previous(arrays)
    assert before[:12].reshape(6, 2)[:, 0].tolist() == [NONE, 0, NONE, 4, 6, 8]
    assert before[:12].reshape(6, 2)[:, 1].tolist() == [NONE, 1, 3, 5, NONE, 9]
    assert before[12:].tolist() == [2]  # the final observation follows the last one of its episode
    assert final_at(arrays) == {(1, 0): 0}


def test_one_final_observation_per_episode_end() -> None:
    arrays = fragment(np.random.default_rng(1), 4, 2, p_end=1.0)
    arrays["final_obs"] = arrays["final_obs"][1:]
    with pytest.raises(Rejected, match=r"final_obs has \d rows for \d episode ends") as caught:
        transitions(arrays, 1, 1.0)
    assert caught.value.reason == "shape"
