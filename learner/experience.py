"""Keeps experience the way the algorithm declared it: fragments in, batches out. Pure: knows no sockets and no clocks.

experience = make_buffer(algorithm.experience, algorithm.schema, seed)
experience.add(trajectory)                # validated and admitted already
while (round_ := experience.next_round()) is not None:
    for batch in round_: ...              # one round = one version
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from headrace.algorithms.base import Batch, Experience, Groups, OnPolicy, Replay, Sequences, State
from headrace.common.seeding import stream
from headrace.common.types import Array, Layout, Schema, Trajectory
from headrace.learner.replay import ReplayBuffer, SamplesPerInsert
from headrace.learner.sequences import SequenceBuffer

#: The axis along which fragments are joined: B, or the episode ends.
_AXIS = {Layout.STEP: 1, Layout.CHAIN: 1, Layout.FINAL: 0, Layout.START: 0}


class ExperienceBuffer(Protocol):
    """What the learner holds between ``add`` and an update."""

    #: How full a replay buffer is, 0 to 1; None for what keeps nothing.
    fill: float | None

    def add(self, trajectory: Trajectory) -> None: ...

    def next_round(self) -> Round | None:
        """Fragments and batches of the next version, or None while there are too few fragments."""

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class Round:
    """The fragments consumed by one version, and the batches to update on. ``report`` gives back new priorities."""

    def __init__(self, fragments: Sequence[Trajectory], batches: Iterator[Batch]) -> None:
        self.fragments, self.batches = fragments, batches

    def report(self, priorities: Array | None) -> None:
        """Nothing to tell by default; replay overrides it."""


def per_version(declared: Experience) -> int:
    """Fragments consumed by each version: what the pacing counts in."""
    return declared.groups if isinstance(declared, Groups) else declared.fragments


def make_buffer(declared: Experience, schema: Schema, seed: int) -> ExperienceBuffer:
    """The buffer for a declared kind of experience, of fragments that hold what ``schema`` says."""
    match declared:
        case OnPolicy():
            return FragmentBuffer(declared.fragments, partial(join_on_policy, schema=schema))
        case Groups():
            return FragmentBuffer(declared.groups, join_groups)
        case Replay():
            return ReplayExperience(declared, ReplayBuffer(declared, stream(seed, "replay")))
        case Sequences():
            return ReplayExperience(declared, SequenceBuffer(declared, schema, stream(seed, "replay")))


class FragmentBuffer:
    """OnPolicy and Groups: the next N fragments make one batch, in order of their leases, and are never used again."""

    def __init__(self, needed: int, join: Callable[[Sequence[Trajectory]], Batch]) -> None:
        self.fill: float | None = None
        self._needed, self._join = needed, join
        self._waiting: list[Trajectory] = []

    def add(self, trajectory: Trajectory) -> None:
        self._waiting.append(trajectory)

    def next_round(self) -> Round | None:
        if len(self._waiting) < self._needed:
            return None
        taken, self._waiting = self._waiting[: self._needed], self._waiting[self._needed :]
        taken.sort(key=lambda t: t.lease)
        return Round(taken, iter([self._join(taken)]))

    def state(self) -> State:
        return State({})  # what waits here is read again from the carrier, or collected anew

    def restore(self, state: State) -> None:
        self._waiting.clear()


class ReplayExperience:
    """Replay and Sequences: fragments go into the buffer; each version samples what its inserts have paid for."""

    def __init__(self, declared: Replay | Sequences, buffer: ReplayBuffer | SequenceBuffer) -> None:
        self._declared, self._buffer = declared, buffer
        self.fill: float | None = 0.0
        self._pace = SamplesPerInsert(declared.samples_per_insert, declared.batch, declared.min_size)
        self._waiting: list[Trajectory] = []

    def add(self, trajectory: Trajectory) -> None:
        self._waiting.append(trajectory)

    def next_round(self) -> Round | None:
        needed = self._declared.fragments
        if len(self._waiting) < needed:
            return None
        taken, self._waiting = self._waiting[:needed], self._waiting[needed:]
        taken.sort(key=lambda t: t.lease)
        due = sum(self._pace.insert(self._buffer.insert(t)) for t in taken)
        self.fill = len(self._buffer) / self._declared.capacity
        return _ReplayRound(taken, self._buffer, due)

    def state(self) -> State:
        buffer, pace = self._buffer.state(), self._pace
        values = {"buffer": buffer.values, "inserted": pace.inserted, "owed": pace.owed}
        return State(buffer.tensors, values, buffer.blocks)

    def restore(self, state: State) -> None:
        self._waiting.clear()
        self._buffer.restore(State(state.tensors, state.values["buffer"], state.blocks))
        self._pace.inserted, self._pace.owed = state.values["inserted"], state.values["owed"]


class _ReplayRound(Round):
    """Samples lazily, so that priorities reported after one minibatch already count for the next."""

    def __init__(self, fragments: Sequence[Trajectory], buffer: ReplayBuffer | SequenceBuffer, due: int) -> None:
        super().__init__(fragments, self._sample(due))
        self._buffer = buffer

    def _sample(self, due: int) -> Iterator[Batch]:
        for _ in range(due):
            batch, self._indices = self._buffer.sample()
            yield batch

    def report(self, priorities: Array | None) -> None:
        if priorities is not None:
            self._buffer.update_priorities(self._indices, priorities)


def join_on_policy(fragments: Sequence[Trajectory], schema: Schema) -> Batch:
    """Fragments of equal T side by side along B. FINAL arrays keep a row per episode end with its ``final_t``,
    ``final_b``, ordered by fragment."""
    arrays: dict[str, Array] = {
        name: np.concatenate([f.arrays[name] for f in fragments], axis=_AXIS[field.layout])
        for name, field in schema.fields.items()
    }
    ends = [np.nonzero(f.arrays["terminated"] | f.arrays["truncated"]) for f in fragments]
    offsets = np.cumsum([0, *(f.B for f in fragments[:-1])])
    arrays["final_t"] = np.concatenate([t for t, _ in ends])
    arrays["final_b"] = np.concatenate([b + offset for (_, b), offset in zip(ends, offsets, strict=True)])
    return Batch(arrays, sum(f.steps for f in fragments))


def join_groups(fragments: Sequence[Trajectory]) -> Batch:
    """Groups flattened to their valid steps, with the episode each step belongs to and the group of each episode."""
    flat: dict[str, list[Array]] = {name: [] for name in fragments[0].arrays}
    episode, returns, group, first = [], [], [], 0
    for number, fragment in enumerate(fragments):
        valid = fragment.arrays["valid"]
        for name, array in fragment.arrays.items():
            flat[name].append(array[valid])
        episode.append(np.nonzero(valid)[1] + first)
        returns.append(np.where(valid, fragment.arrays["reward"], 0).sum(axis=0, dtype=np.float64))
        group.append(np.full(fragment.B, number, np.int64))
        first += fragment.B
    arrays = {name: np.concatenate(parts) for name, parts in flat.items()}
    arrays |= {
        "episode": np.concatenate(episode),
        "episode_return": np.concatenate(returns),
        "episode_group": np.concatenate(group),
    }
    return Batch(arrays, sum(f.steps for f in fragments))
