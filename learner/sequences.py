"""Replay of sequences: whole columns of fragments, each with the state that its actor had before it.

    fragment --> B columns of T steps --> ring [capacity] --sample--> Batch [T, batch, ...]

A column is one row of the ring, so its observations stand there once (its last one also begins the next fragment's).
"""

from __future__ import annotations

import numpy as np

from headrace.algorithms.base import Batch, Sequences, State
from headrace.common.errors import UsageError
from headrace.common.seeding import generator_state, restore_generator
from headrace.common.types import Array, Layout, Schema, Trajectory
from headrace.learner.ring import Ring


def sequences_nbytes(schema: Schema, sequences: Sequences, steps: int) -> int:
    """Bytes a :class:`SequenceBuffer` of fragments of ``steps`` steps will hold."""
    rows = {Layout.STEP: steps, Layout.CHAIN: steps + 1, Layout.START: 1, Layout.FINAL: 0}
    return sequences.capacity * sum(rows[field.layout] * field.nbytes for field in schema.fields.values())


class SequenceBuffer:
    """The latest ``capacity`` columns of fragments, drawn uniformly. ``rng`` is the buffer's own, saved with it."""

    def __init__(self, declared: Sequences, schema: Schema, rng: np.random.Generator) -> None:
        if not 0 <= declared.min_size <= declared.capacity:
            raise UsageError(
                f"replay: min_size is {declared.min_size}, must be from 0 to capacity ({declared.capacity})"
            )
        self.declared, self._rng = declared, rng
        self._layouts = {n: f.layout for n, f in schema.fields.items() if f.layout is not Layout.FINAL}
        self._ring: Ring | None = None

    def __len__(self) -> int:
        return self._ring.written - self._ring.oldest if self._ring else 0

    @property
    def nbytes(self) -> int:
        """Bytes held; none before the first fragment."""
        return self._ring.nbytes if self._ring else 0

    def insert(self, trajectory: Trajectory) -> int:
        """Add a fragment's columns, the oldest making room; returns how many. Raises :class:`UsageError` for sequences
        of another length than those that are held."""
        columns = {
            name: trajectory.arrays[name] if layout is Layout.START else np.swapaxes(trajectory.arrays[name], 0, 1)
            for name, layout in self._layouts.items()
        }
        self._ring = self._ring or Ring(self.declared.capacity, columns)
        if (held := self._ring.like("reward").shape[1]) != trajectory.T:
            raise UsageError(
                f"replay: it holds sequences of {held} steps; actors.fragment_steps cannot become {trajectory.T}"
            )
        self._ring.append(columns)
        return trajectory.B

    def sample(self) -> tuple[Batch, Array]:
        """``batch`` columns with replacement, side by side as fragments are, and their serial numbers."""
        if self._ring is None:
            raise ValueError("sample() from an empty replay buffer")
        serials = self._rng.integers(self._ring.oldest, self._ring.written, self.declared.batch)
        arrays = {name: self._ring.take(name, serials) for name in self._layouts}
        arrays = {n: a if self._layouts[n] is Layout.START else np.swapaxes(a, 0, 1) for n, a in arrays.items()}
        return Batch(arrays, self.declared.batch), serials

    def update_priorities(self, serials: Array, errors: Array) -> None:
        """Nothing: sequences are drawn uniformly."""

    def state(self) -> State:
        values = {"rng": generator_state(self._rng), "capacity": self.declared.capacity}
        if self._ring is None:
            return State({}, values | {"inserted": 0})
        return State({}, values | {"inserted": self._ring.written}, self._ring.blocks("sequences"))

    def restore(self, state: State) -> None:
        """Go on from :meth:`state`. Raises :class:`UsageError` when it was saved with another capacity."""
        saved, ours = state.values, self.declared.capacity
        if saved["capacity"] != ours:
            raise UsageError(f"replay: the saved buffer holds {saved['capacity']} sequences, this configuration {ours}")
        self._rng = restore_generator(saved["rng"])
        self._ring = Ring.restored(ours, saved["inserted"], state.blocks) if saved["inserted"] else None
