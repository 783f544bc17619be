"""A fragment in which a forbidden action was taken, or in which nothing was allowed, is refused for one reason."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.algorithms import dqn, grpo, ppo
from headrace.common import masks
from headrace.common.errors import Rejected
from headrace.common.types import Array, Field, Layout, Schema, Spaces, Trajectory
from headrace.common.validation import Expected, validate

T, B = 4, 3
SINGLE = Spaces({"x": Field("float32", (2,)), "action_mask": Field("bool", (4,))}, Field("int64", below=4))
SEVERAL = Spaces({"": Field("int64", below=9), "action_mask": Field("bool", (5,))}, Field("int64", (2,), below=(3, 2)))


def fragment(spaces: Spaces, schema: Schema, seed: int = 0) -> dict[str, Array]:
    """Random masks and actions of those they allow; three episodes end, one of them with nothing allowed any more."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    lead = {Layout.STEP: (T, B), Layout.CHAIN: (T + 1, B), Layout.FINAL: (3,)}
    for name, field in schema.fields.items():
        shape = (*lead[field.layout], *field.shape)
        arrays[name] = rng.integers(0, field.below or 2, shape).astype(field.dtype)
    arrays["terminated"][:], arrays["truncated"][:] = False, False
    arrays["terminated"][0, 0] = arrays["terminated"][2, 1] = arrays["truncated"][1, 2] = True
    if "valid" in arrays:
        arrays["valid"][:] = True
    first = np.cumsum([0, *spaces.action.choices])
    for name in (name for name in arrays if name.endswith(".action_mask")):
        for begin, end in itertools.pairwise(first):
            arrays[name][..., begin] |= ~arrays[name][..., begin:end].any(-1)
    if "final_obs.action_mask" in arrays:
        arrays["final_obs.action_mask"][0] = False
    mask = arrays["obs.action_mask"][:T].reshape(T, B, -1)
    parts = np.split(mask, first[1:-1], axis=-1)
    chosen = np.stack([np.where(part, rng.random(part.shape), -1).argmax(-1) for part in parts], -1)
    arrays["action"] = chosen.reshape(arrays["action"].shape)
    return arrays


def check(spaces: Spaces, module: Any, **changes: Any) -> None:
    schema = module.schema(module.Config(), spaces)
    arrays = fragment(spaces, schema)
    for name, (at, value) in changes.items():
        arrays[name.replace("__", ".")][at] = value
    validate(Trajectory("run", 1, 0, 1, 0, 0, 0, "task", schema.hash, T, B, arrays), Expected(schema, "run"))


CASES = [(SINGLE, ppo), (SINGLE, dqn), (SINGLE, grpo), (SEVERAL, ppo), (SEVERAL, grpo)]


@pytest.mark.parametrize(("spaces", "module"), CASES)
def test_allowed_actions_are_taken_in(spaces: Spaces, module: Any) -> None:
    check(spaces, module)


@pytest.mark.parametrize(("spaces", "module"), CASES)
def test_a_forbidden_action_is_refused(spaces: Spaces, module: Any) -> None:
    mask = np.ones(spaces.action.features, bool)
    mask[-1] = False  # the last choice of the last component
    action = np.array(spaces.action.choices)[-1] - 1
    at = (2, 1) if spaces.discrete else (2, 1, -1)
    with pytest.raises(Rejected, match="1 of 12 actions are ones that their action_mask forbids") as caught:
        check(spaces, module, obs__action_mask=((2, 1), mask), action=(at, action))
    assert caught.value.reason == "mask"


@pytest.mark.parametrize(("spaces", "module"), [case for case in CASES if case[1] is not grpo])
def test_where_one_acts_something_is_allowed(spaces: Spaces, module: Any) -> None:
    for name, at in (("obs__action_mask", (T, 0)), ("final_obs__action_mask", 1)):
        with pytest.raises(Rejected, match="allows nothing in 1 observations") as caught:
            check(spaces, module, **{name: (at, False)})
        assert caught.value.reason == "mask"
    check(spaces, module, final_obs__action_mask=(2, False))  # that one was terminated


def test_steps_that_are_no_experience_need_no_mask() -> None:
    changes = {"valid": ((3, 2), False), "obs__action_mask": ((3, 2), False)}
    check(SINGLE, grpo, **changes)
    with pytest.raises(Rejected, match="action_mask"):
        check(SINGLE, grpo, obs__action_mask=changes["obs__action_mask"])


def test_each_component_needs_a_choice() -> None:
    mask = np.array([[1, 0, 0, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]], bool)
    assert masks.allows_any(mask, (3, 2)).tolist() == [True, False, False]


@pytest.mark.parametrize(("name", "value"), [("action", 2), ("action", -1), ("obs", 9), ("obs", -1)])
def test_whole_numbers_are_held_to_their_choices(name: str, value: int) -> None:
    at = (1, 1, 1) if name == "action" else (1, 1)
    with pytest.raises(Rejected) as caught:
        check(SEVERAL, ppo, **{name: (at, value)})
    assert caught.value.reason == "range"


def test_a_run_without_masks_refuses_one() -> None:
    schema = ppo.schema(ppo.Config(), SINGLE)
    without = ppo.schema(ppo.Config(), replace(SINGLE, obs={"x": SINGLE.obs["x"]}))
    arrays = fragment(SINGLE, schema)
    with pytest.raises(Rejected, match=r"unknown arrays \['final_obs.action_mask', 'obs.action_mask'\]"):
        validate(Trajectory("run", 1, 0, 1, 0, 0, 0, "t", without.hash, T, B, arrays), Expected(without, "run"))
