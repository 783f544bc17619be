"""Only what fits the run's schema, and is finite, reaches the optimiser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.algorithms import grpo
from headrace.common.errors import Rejected
from headrace.common.types import Episode, Spaces, Trajectory
from headrace.common.validation import MAX_ABS, Expected, validate

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
    validate(trajectory(ends=ends), Expected(SCHEMA, "run"))


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
        validate(bad, Expected(SCHEMA, "run"))
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "expected", "says"),
    [
        ("shape", {"steps": 9}, "fragments have 9"),
        ("shape", {"envs": 500}, "fragments have 500"),
        ("shape", {"max_steps": 1}, "at most 1"),
        ("lease", {"lockstep": 1000}, "turn"),
    ],
)
def test_the_configs_numbers_are_the_validators(reason: str, expected: dict[str, int], says: str) -> None:
    with pytest.raises(Rejected, match=says) as refused:
        validate(replace(trajectory(), actor_id=999), Expected(SCHEMA, "run", **expected))
    assert refused.value.reason == reason


@pytest.mark.parametrize("name", ["learner_epoch", "policy_version", "lease", "seq"])
@pytest.mark.parametrize("number", [-1, 2**62 + 1, 2**63 - 1])
def test_stamps_that_no_run_reaches_are_refused(name: str, number: int) -> None:
    stamps: dict[str, Any] = {name: number}
    with pytest.raises(Rejected, match=f"{name} is {number}") as refused:
        validate(replace(trajectory(), **stamps), Expected(SCHEMA, "run"))
    assert refused.value.reason == "range"


@pytest.mark.parametrize(
    "episode", [Episode(1e308, 3), Episode(-2 * MAX_ABS, 3), Episode(1.0, -1), Episode(1.0, 2**63 - 1)]
)
def test_episodes_nobody_played_are_refused(episode: Episode) -> None:
    with pytest.raises(Rejected) as refused:
        validate(replace(trajectory(), episodes=(episode,)), Expected(SCHEMA, "run"))
    assert refused.value.reason == "range"
    too_many = (Episode(1.0, 1),) * (trajectory().T * trajectory().B + 1)
    whole = Expected(SCHEMA, "run", episodes_whole=True)
    with pytest.raises(Rejected, match="an episode of 5 steps"):
        validate(replace(trajectory(), episodes=(Episode(1.0, trajectory().T + 1),)), whole)
    with pytest.raises(Rejected, match="episodes ended"):
        validate(replace(trajectory(), episodes=too_many), Expected(SCHEMA, "run"))


@pytest.mark.parametrize("whole", [True, False])
def test_a_group_without_a_valid_step_is_refused(whole: bool) -> None:
    config = grpo.Config(groups=2, group_size=2, max_steps=5)
    schema = grpo.schema(config, Spaces.box((3,), n_actions=2))
    arrays = {name: np.zeros((4, 2, *field.shape), field.dtype) for name, field in schema.fields.items()}
    arrays["valid"][0, 0] = True
    group = Trajectory("run", 1, 0, 1, 0, 0, 0, "task", schema.hash, 4, 2, arrays)
    if not whole:
        validate(group, Expected(schema, "run"))
        arrays["valid"][0, 0] = False
    with pytest.raises(Rejected, match="no valid step") as refused:
        validate(group, Expected(schema, "run", episodes_whole=whole))
    assert refused.value.reason == "empty"
