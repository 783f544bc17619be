"""Is a fragment fit to be sent? Asked by the actor with the learner's own check, so that both draw the same line; what
is wrong is traced to the environment that did it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from headrace.common.errors import EnvironmentFailed, HeadraceError, Rejected, UsageError
from headrace.common.named import is_of
from headrace.common.types import Array, Layout, Schema, Trajectory
from headrace.common.validation import MAX_ABS

#: What an environment is answerable for, in the order of cause and effect. Other arrays are the policy's.
_SHOWN = ("obs", "final_obs", "reward")


def require_recorded(extras: Mapping[str, Array], schema: Schema) -> None:
    """Does the policy record what ``schema`` says a fragment holds of it? Raises :class:`UsageError`: the two functions
    of an algorithm's file do not agree."""
    by_rollout = {"action", "reward", "terminated", "truncated", "valid"}
    steps = {name for name, field in schema.fields.items() if field.layout is Layout.STEP and not is_of("obs", name)}
    if (wanted := steps - by_rollout) != extras.keys():
        raise UsageError(
            f"algorithm.name: its policy records {sorted(extras)} beside its actions, and its schema() has "
            f"{sorted(wanted)}; they must be the same"
        )


def require_fit(trajectory: Trajectory, env_id: str, check: Callable[[Trajectory], None]) -> None:
    """Raises :class:`EnvironmentFailed` for what an environment did, :class:`HeadraceError` for what the policy (its
    weights hold NaN, say) or anybody else did."""
    try:
        check(trajectory)
    except Rejected as refusal:
        require_sane(trajectory.arrays, env_id)
        if all(np.isfinite(a).all() for a in trajectory.arrays.values() if a.dtype.kind == "f"):
            if refusal.reason in ("nan", "range"):  # rewards that add up to more than any return may be
                raise EnvironmentFailed(f"environments {env_id!r}: {refusal}") from refusal
            raise HeadraceError(f"fragment of {env_id!r}: {refusal}") from refusal
        version = trajectory.policy_version
        raise HeadraceError(f"policy of version {version} on {env_id!r}: {refusal}") from refusal


def require_sane(arrays: Mapping[str, Array], env_id: str) -> None:
    """Raises :class:`EnvironmentFailed` for the first number in ``arrays`` (of a fragment, or of its beginning) that is
    not finite or beyond any task's use."""
    for name in (name for shown in _SHOWN for name in arrays if is_of(shown, name)):
        array = arrays[name]
        if array.dtype.kind != "f":
            continue
        unfit = np.argwhere(~(np.abs(array) <= MAX_ABS))
        if len(unfit):
            number = _column(name, unfit[0], arrays)
            raise EnvironmentFailed(
                f"environment {env_id!r} number {number}: {name} holds {array[tuple(unfit[0])]:g}; every value must be "
                f"finite and within {-MAX_ABS:g} and {MAX_ABS:g}"
            )


def _column(name: str, at: Array, arrays: Mapping[str, Array]) -> int:
    """Which environment of the batch an entry belongs to."""
    if not is_of("final_obs", name):
        return int(at[1])
    return int(np.nonzero(arrays["terminated"] | arrays["truncated"])[1][at[0]])
