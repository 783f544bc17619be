"""Is a decoded trajectory fit for the optimiser? Asked by the learner for every record; actors are not trusted."""

from __future__ import annotations

import math

import numpy as np

from headrace.common.errors import Rejected
from headrace.common.types import Array, Field, Layout, Schema, Trajectory


def validate(trajectory: Trajectory, schema: Schema, run_id: str) -> None:
    """Return when ``trajectory`` is of this run, holds exactly the schema's fields with their dtypes and shapes, and
    every float is finite. Raises :class:`Rejected` (run, schema, empty, dtype, shape, nan)."""
    if trajectory.run_id != run_id:
        raise Rejected("run", f"of run {trajectory.run_id!r}; this learner trains {run_id!r}")
    if trajectory.schema_hash != schema.hash:
        raise Rejected("schema", f"schema {trajectory.schema_hash!r}; this run's is {schema.hash!r}")
    if trajectory.T < 1 or trajectory.B < 1:
        raise Rejected("empty", f"T={trajectory.T}, B={trajectory.B}: nothing to train on")
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
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = np.count_nonzero(~np.isfinite(array))
            raise Rejected("nan", f"array {name!r} holds {bad} values that are not finite")
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


def _check_ends(trajectory: Trajectory, schema: Schema) -> None:
    """FINAL arrays hold one row per episode end, where the trajectory says which steps end one."""
    flags = [trajectory.arrays[n] for n in ("terminated", "truncated") if n in schema.fields]
    if not flags:
        return
    ends = int(np.count_nonzero(np.logical_or.reduce(flags)))
    for name, field in schema.fields.items():
        if field.layout is Layout.FINAL and len(trajectory.arrays[name]) != ends:
            raise Rejected("shape", f"array {name!r} has {len(trajectory.arrays[name])} rows for {ends} episode ends")
