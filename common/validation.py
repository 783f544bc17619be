"""Is a decoded trajectory fit for the optimiser? Asked by the learner for every record; actors are not trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headrace.common import masks
from headrace.common.errors import Rejected
from headrace.common.types import Array, Field, Layout, Schema, Trajectory

#: Counts that no run reaches; one more must still fit the wire's 64 bits.
MAX_COUNT = 2**62
#: Larger numbers than any task has a use for: their squares, summed over a batch, still fit a float32.
MAX_ABS = 1e15


@dataclass(frozen=True)
class Expected:
    """What the config says of every fragment of a run; 0 leaves a number open.

    ``steps``, ``envs``: T and B, exactly; ``max_steps``: T at most. ``episodes_whole``: every column holds one episode,
    so at least one valid step (groups). ``lockstep``: the number of workers that take leases in turn.
    """

    schema: Schema
    run_id: str
    task_id: str = ""
    steps: int = 0
    envs: int = 0
    max_steps: int = 0
    episodes_whole: bool = False
    lockstep: int = 0


def validate(trajectory: Trajectory, expected: Expected) -> None:
    """Return when ``trajectory`` is of this run and as large as its config says, holds exactly the schema's fields with
    their dtypes and shapes, every number is finite and in its range, and every action one that its mask allowed.

    Raises :class:`Rejected` (run, schema, empty, dtype, shape, nan, range, mask, lease)."""
    schema = expected.schema
    if trajectory.run_id != expected.run_id:
        raise Rejected("run", f"of run {trajectory.run_id!r}; this learner trains {expected.run_id!r}")
    if trajectory.schema_hash != schema.hash:
        raise Rejected("schema", f"schema {trajectory.schema_hash!r}; this run's is {schema.hash!r}")
    _check_stamps(trajectory, expected)
    _check_size(trajectory, expected)
    if trajectory.arrays.keys() != schema.fields.keys():
        missing, extra = (
            sorted(schema.fields.keys() - trajectory.arrays),
            sorted(trajectory.arrays.keys() - schema.fields),
        )
        raise Rejected("schema", f"missing arrays {missing}, unknown arrays {extra}")
    for name, field in schema.fields.items():
        if trajectory.arrays[name].dtype.name != field.dtype:
            raise Rejected("dtype", f"array {name!r} is {trajectory.arrays[name].dtype}; the schema says {field.dtype}")
        _check_shape(name, trajectory.arrays[name], field, trajectory)
    _check_ends(trajectory, schema)
    for name, array in trajectory.arrays.items():
        _check_values(name, array, schema.fields[name].below)
    _check_steps(trajectory, expected)
    if "action" in schema.fields:
        masks.check(trajectory.arrays, schema.fields["action"].choices)
    _check_episodes(trajectory, expected)


def _check_stamps(trajectory: Trajectory, expected: Expected) -> None:
    if expected.task_id and trajectory.task_id != expected.task_id:
        raise Rejected("schema", f"of task {trajectory.task_id!r}; this run's is {expected.task_id!r}")
    for name in ("learner_epoch", "policy_version", "lease", "seq"):
        if not 0 <= getattr(trajectory, name) <= MAX_COUNT:
            raise Rejected("range", f"{name} is {getattr(trajectory, name)}; allowed are 0 to {MAX_COUNT}")
    if expected.lockstep and trajectory.lease % expected.lockstep != trajectory.actor_id:
        owner = trajectory.lease % expected.lockstep
        raise Rejected("lease", f"lease {trajectory.lease} is worker {owner}'s turn, not {trajectory.actor_id}'s")


def _check_size(trajectory: Trajectory, expected: Expected) -> None:
    T, B = trajectory.T, trajectory.B
    if T < 1 or B < 1:
        raise Rejected("empty", f"T={T}, B={B}: nothing to train on")
    if expected.steps and expected.steps != T:
        raise Rejected("shape", f"{T} steps; this run's fragments have {expected.steps}")
    if expected.envs and expected.envs != B:
        raise Rejected("shape", f"{B} environments; this run's fragments have {expected.envs}")
    if expected.max_steps and expected.max_steps < T:
        raise Rejected("shape", f"{T} steps; this run's fragments have at most {expected.max_steps}")


def _check_steps(trajectory: Trajectory, expected: Expected) -> None:
    """There is something to train on: in each episode, where the fragment is made of whole ones."""
    valid = trajectory.arrays.get("valid")
    if valid is not None and not (valid.any(axis=0).all() if expected.episodes_whole else valid.any()):
        raise Rejected("empty", "no valid step" + (" in one of the episodes" if expected.episodes_whole else ""))


def _check_episodes(trajectory: Trajectory, expected: Expected) -> None:
    longest = trajectory.T if expected.episodes_whole else MAX_COUNT
    if len(trajectory.episodes) > trajectory.T * trajectory.B:
        raise Rejected("range", f"{len(trajectory.episodes)} episodes ended in {trajectory.T * trajectory.B} steps")
    for episode in trajectory.episodes:
        if not math.isfinite(episode.ret):
            raise Rejected("nan", "an episode's return is not finite")
        if abs(episode.ret) > MAX_ABS or not 1 <= episode.length <= longest:
            raise Rejected("range", f"an episode of {episode.length} steps returned {episode.ret}")


def _check_shape(name: str, array: Array, field: Field, trajectory: Trajectory) -> None:
    leading = {
        Layout.STEP: (trajectory.T, trajectory.B),
        Layout.CHAIN: (trajectory.T + 1, trajectory.B),
        Layout.FINAL: array.shape[:1],  # how many there must be is _check_ends' question
        Layout.START: (trajectory.B,),
    }[field.layout]
    expected = leading + field.shape
    if array.ndim == 0 or array.shape != expected:
        raise Rejected("shape", f"array {name!r} ({field.layout.value}) is {array.shape}; expected {expected}")


def _check_values(name: str, array: Array, below: int | tuple[int, ...]) -> None:
    """Every number finite and in its range. (min and max hand a NaN on, and make no temporaries.)"""
    if not array.size or not (below or array.dtype.kind == "f"):
        return
    if isinstance(below, tuple):
        if np.any((array < 0) | (array >= np.array(below))):
            raise Rejected("range", f"array {name!r} holds values that are not in [0, {below}), entry by entry")
        return
    low, high = (0, below - 1) if below else (-MAX_ABS, MAX_ABS)
    least, most = array.min(), array.max()
    if low <= least and most <= high:
        return
    if not (np.isfinite(least) and np.isfinite(most)):
        bad = np.count_nonzero(~np.isfinite(array))
        raise Rejected("nan", f"array {name!r} holds {bad} values that are not finite")
    raise Rejected("range", f"array {name!r} holds values from {least} to {most}; allowed are {low} to {high}")


def _check_ends(trajectory: Trajectory, schema: Schema) -> None:
    """FINAL arrays hold one row per episode end, where the trajectory says which steps end one."""
    flags = [trajectory.arrays[n] for n in ("terminated", "truncated") if n in schema.fields]
    if not flags:
        return
    ends = int(np.count_nonzero(np.logical_or.reduce(flags)))
    for name, field in schema.fields.items():
        if field.layout is Layout.FINAL and len(trajectory.arrays[name]) != ends:
            raise Rejected("shape", f"array {name!r} has {len(trajectory.arrays[name])} rows for {ends} episode ends")
