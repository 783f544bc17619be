"""Is a decoded trajectory fit for the optimiser? Asked by the learner for every record; actors are not trusted."""

from __future__ import annotations

import math

import numpy as np

from headrace.common.errors import Rejected
from headrace.common.types import Array, Field, Layout, Schema, Trajectory

#: Counts that no run reaches; one more must still fit the wire's 64 bits.
MAX_COUNT = 2**62
#: Larger numbers than any task has a use for: their squares, summed over a batch, still fit a float32.
MAX_ABS = 1e15


def validate(trajectory: Trajectory, schema: Schema, run_id: str, steps: int = 0) -> None:
    """Return when ``trajectory`` is of this run, holds exactly the schema's fields with their dtypes and shapes, and
    every number is finite and in its range. ``steps`` > 0: it must have T = ``steps``, to fit beside others in a batch.

    Raises :class:`Rejected` (run, schema, empty, dtype, shape, nan, range)."""
    if trajectory.run_id != run_id:
        raise Rejected("run", f"of run {trajectory.run_id!r}; this learner trains {run_id!r}")
    if trajectory.schema_hash != schema.hash:
        raise Rejected("schema", f"schema {trajectory.schema_hash!r}; this run's is {schema.hash!r}")
    for name in ("learner_epoch", "policy_version", "lease", "seq"):
        if not 0 <= getattr(trajectory, name) <= MAX_COUNT:
            raise Rejected("range", f"{name} is {getattr(trajectory, name)}; allowed are 0 to {MAX_COUNT}")
    if trajectory.T < 1 or trajectory.B < 1:
        raise Rejected("empty", f"T={trajectory.T}, B={trajectory.B}: nothing to train on")
    if steps and steps != trajectory.T:
        raise Rejected("shape", f"{trajectory.T} steps; this run's fragments have {steps}")
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
    if not all(math.isfinite(e.ret) and e.length >= 0 for e in trajectory.episodes):
        raise Rejected("nan", "an episode's return is not finite or its length is negative")


def _check_shape(name: str, array: Array, field: Field, trajectory: Trajectory) -> None:
    leading = {
        Layout.STEP: (trajectory.T, trajectory.B),
        Layout.CHAIN: (trajectory.T + 1, trajectory.B),
        Layout.FINAL: array.shape[:1],  # how many there must be is _check_ends' question
    }[field.layout]
    expected = leading + field.shape
    if array.ndim == 0 or array.shape != expected:
        raise Rejected("shape", f"array {name!r} ({field.layout.value}) is {array.shape}; expected {expected}")


def _check_values(name: str, array: Array, below: int) -> None:
    """Every number finite and in its range. (min and max hand a NaN on, and make no temporaries.)"""
    if not array.size or not (below or array.dtype.kind == "f"):
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
