"""Only what fits the run's schema, and is finite, reaches the optimiser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.common.errors import Rejected
from headrace.common.types import Episode, Trajectory
from headrace.common.validation import validate

from .samples import SCHEMA, trajectory


def with_array(name: str, array: Any) -> Trajectory:
    good = trajectory()
    return replace(good, arrays={**good.arrays, name: array})


def without(name: str) -> Trajectory:
    good = trajectory()
    return replace(good, arrays={n: a for n, a in good.arrays.items() if n != name})


def poisoned(name: str, value: float) -> Trajectory:
    array = trajectory().arrays[name].copy()
    array.reshape(-1)[-1] = value
    return with_array(name, array)


@pytest.mark.parametrize("ends", [0, 1, 8])
def test_a_good_one_passes(ends: int) -> None:
    validate(trajectory(ends=ends), SCHEMA, "run")


@pytest.mark.parametrize(
    ("reason", "bad"),
    [
        ("run", trajectory(run_id="another")),
        ("schema", trajectory(schema_hash="0" * 16)),
        ("schema", without("reward")),
        ("schema", with_array("bonus", np.zeros((4, 2), np.float32))),
        ("empty", trajectory(T=0, ends=0)),
        ("empty", trajectory(B=0, ends=0)),
        ("dtype", with_array("reward", np.zeros((4, 2), np.float64))),
        ("dtype", with_array("terminated", np.zeros((4, 2), np.uint8))),
        ("shape", with_array("reward", np.zeros((2, 4), np.float32))),
        ("shape", with_array("reward", np.zeros((4, 2, 1), np.float32))),
        ("shape", with_array("reward", np.zeros((), np.float32))),
        ("shape", with_array("obs", np.zeros((4, 2, 8), np.float32))),  # CHAIN wants T + 1
        ("shape", with_array("final_obs", np.zeros((2, 8), np.float32))),
        ("shape", with_array("final_obs", np.zeros((1, 9), np.float32))),
        ("shape", with_array("final_obs", np.zeros((), np.float32))),
        ("shape", with_array("truncated", np.ones((4, 2), bool))),  # 8 ends, 1 row
        ("shape", replace(trajectory(), T=3)),
        ("nan", poisoned("reward", np.nan)),
        ("nan", poisoned("obs", np.inf)),
        ("nan", poisoned("final_obs", -np.inf)),
        ("nan", trajectory(episodes=(Episode(np.nan, 5),))),
    ],
)
def test_a_bad_one_is_rejected_with_its_reason(reason: str, bad: Trajectory) -> None:
    with pytest.raises(Rejected) as caught:
        validate(bad, SCHEMA, "run")
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
