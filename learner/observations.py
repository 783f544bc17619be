"""The observations of a replay buffer: each stored once, single or as the last frames of its episode.

    fragment --> | rows of obs, final_obs | ... (a ring)        at(rows): [N, ...] or [N, stack, ...]
                        previous ^----'                         a stack is row, previous[row], ...

Rows are in the order of chains.py; the oldest make room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.algorithms.base import Block
from headrace.common import named
from headrace.common.buffers import Buffers
from headrace.common.types import MASK, Array, Spaces, Trajectory
from headrace.learner import chains
from headrace.learner.ring import Ring

_MASK = named.array_name("obs", MASK)
#: Minibatches whose memory is used again once nobody looks at them (each has two arrays of an observation).
_KEPT_MINIBATCHES = 3


def observation_rows(capacity: int, steps: int, envs: int) -> int:
    """Rows kept for ``capacity`` transitions that come in fragments of [``steps``, ``envs``]: one more than steps in
    each, the fragment that is being written, and one row in 16 for the ends of episodes."""
    fragments = -(-capacity // (steps * envs)) + 1
    return fragments * (steps + 1) * envs + -(-capacity // 16)


def observation_nbytes(spaces: Spaces, rows: int, stack: int) -> int:
    """Bytes of so many rows."""
    link = 8 if stack > 1 else 0
    return rows * (sum(field.nbytes for field in spaces.obs.values()) + link)


class Observations:
    """A ring of rows, numbered from 0 as they came; ``stack`` frames make an observation. ``like``: arrays of one, by
    their names in a fragment (obs, or obs.image, ...)."""

    def __init__(self, rows: int, like: Mapping[str, Array], stack: int) -> None:
        links = {"previous": np.empty(0, np.int64)} if stack > 1 else {}
        self._ring, self._stack, self._names = Ring(rows, {**like, **links}), stack, list(like)
        #: (actor, incarnation) -> (seq, row of the last observations, envs) of its latest fragment, where frames stack.
        self._ends: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._memory = Buffers(2 * len(self._names) * _KEPT_MINIBATCHES)

    @property
    def nbytes(self) -> int:
        return self._ring.nbytes

    @property
    def oldest(self) -> int:
        """The lowest row number still held."""
        return self._ring.oldest

    def append(self, trajectory: Trajectory) -> int:
        """Store a fragment's observations; returns the number of its first row (chains.py has the order)."""
        first = self._ring.written
        obs, final_obs = (named.gathered(trajectory.arrays, kind) for kind in ("obs", "final_obs"))
        rows = named.spread("obs", named.each(lambda one: one.reshape(-1, *one.shape[2:]), obs))
        final_rows = named.spread("obs", final_obs)
        if self._stack == 1:
            self._ring.append(rows)
            self._ring.append(final_rows)
            return first
        links = chains.previous(trajectory.arrays)
        links[links != chains.NONE] += first
        links[: trajectory.B] = self._before(trajectory)
        count = (trajectory.T + 1) * trajectory.B
        self._ring.append({**rows, "previous": links[:count]})
        self._ring.append({**final_rows, "previous": links[count:]})
        last = first + trajectory.T * trajectory.B
        self._ends[trajectory.actor_id, trajectory.incarnation] = trajectory.seq, last, trajectory.B
        self._ends = {who: end for who, end in self._ends.items() if end[1] >= self.oldest}
        return first

    def at(self, rows: Array, kind: str) -> dict[str, Array]:
        """The observations [N, ...] of ``rows`` (int64 [N]), named as those of ``kind`` (obs, next_obs). Where they are
        stacked [N, stack, ...], oldest first, with zeros before an episode's beginning, or where what came before is
        not held."""
        held = None
        if self._stack > 1:
            rows, held = self._stacks(rows)
        return {f"{kind}{name.removeprefix('obs')}": self._taken(name, rows, held) for name in self._names}

    def _taken(self, name: str, rows: Array, held: Array | None) -> Array:
        like = self._ring.like(name)
        if held is not None and name == _MASK:
            rows, held = rows[:, -1], None  # what was allowed before says nothing of now
        shape = (*rows.shape, *like.shape[1:])
        memory = self._memory.take(int(np.prod(shape)) * like.itemsize)
        found = self._ring.take(name, rows, np.frombuffer(memory, like.dtype).reshape(shape))
        if held is not None and not held.all():
            found[~held] = 0
        return found

    def _before(self, trajectory: Trajectory) -> Array:
        """The rows one step before a fragment's first ones, int64 [B]: in the fragment before, if it is held and ended
        with the very observations that this one begins with (an actor that made its environments anew goes on
        counting)."""
        none = np.full(trajectory.B, chains.NONE)
        seq, last, envs = self._ends.get((trajectory.actor_id, trajectory.incarnation), (-1, 0, 0))
        if (seq + 1, envs) != (trajectory.seq, trajectory.B) or last < self.oldest:
            return none
        same = np.ones(envs, bool)
        for name in self._names:
            ended_with = self._ring.take(name, np.arange(last, last + envs))
            same &= (ended_with == trajectory.arrays[name][0]).reshape(envs, -1).all(1)
        return np.where(same, self._ring.take("previous", np.arange(last, last + envs)), none)

    def _stacks(self, rows: Array) -> tuple[Array, Array]:
        """The rows of each one's stack, oldest first, and which of them are: int64 and bool [N, stack]."""
        stacks = np.repeat(rows[:, None], self._stack, axis=1)
        held = np.ones(stacks.shape, bool)
        for i in range(self._stack - 2, -1, -1):
            before = self._ring.take("previous", stacks[:, i + 1])
            held[:, i] = before >= self.oldest
            stacks[:, i] = np.where(held[:, i], before, stacks[:, i + 1])  # where not, the same is asked again
        return stacks, held

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, Block]]:
        ends = [[*who, *end] for who, end in self._ends.items()]
        return {"rows": self._ring.rows, "written": self._ring.written, "ends": ends}, self._ring.blocks("obs")

    @classmethod
    def restored(cls, stack: int, values: Mapping[str, Any], blocks: Mapping[str, Block]) -> Observations:
        """Go on from :meth:`state`. Raises :class:`UsageError` where blocks are missing."""
        ring = Ring.restored(values["rows"], values["written"], blocks)
        found = cls(1, {name: ring.like(name) for name in ring.names if named.is_of("obs", name)}, stack)
        found._ring = ring
        found._ends = {(actor, life): (seq, row, envs) for actor, life, seq, row, envs in values["ends"]}
        return found
