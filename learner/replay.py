"""Replay: n-step transitions built from fragments, drawn uniformly or by priority; every observation stored once.

    fragment --chains.py--> rows ---------> observations.py ---------.
                            transitions --> ring [capacity] --sample--> Batch
                                       priorities ^--- update_priorities <--- |TD error|

Fragments are independent of each other, so they may arrive in any order and from any number of actors. (Stacks of
frames alone look back into the fragment before, where it came before.)
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from headrace.algorithms.base import Batch, Replay, State
from headrace.common import named
from headrace.common.errors import UsageError
from headrace.common.seeding import generator_state, restore_generator
from headrace.common.types import Array, Spaces, Trajectory
from headrace.learner import chains
from headrace.learner.observations import Observations, observation_nbytes, observation_rows
from headrace.learner.ring import Ring
from headrace.learner.sum_tree import SumTree, tree_nodes

#: Added to |TD error| so that no transition is starved for ever (Schaul et al. 2016, section 3.3).
PRIORITY_EPS = 1e-6
#: Columns of a transition (chains.py).
TRANSITION = ("row", "ahead", "action", "reward", "discount")


def replay_nbytes(spaces: Spaces, replay: Replay, steps: int, envs: int) -> int:
    """Bytes a :class:`ReplayBuffer` of fragments of [``steps``, ``envs``] will hold, known before it is allocated."""
    rows = observation_rows(replay.capacity, steps, envs)
    tree = 8 * tree_nodes(replay.capacity) if replay.priority_alpha > 0 else 0
    transitions = replay.capacity * (8 + 4 + spaces.action.nbytes + 4 + 4)
    return observation_nbytes(spaces, rows, replay.stack) + transitions + tree


class ReplayBuffer:
    """Transitions are known by their serial number, counted from 0 as they came in; held are the latest ``capacity`` of
    them, or as many as still have their observations. Memory is taken in whole at the first fragment, and touched, so
    that it does not grow later.

    ``rng`` is the buffer's own: it is saved and restored with it, so the samples go on bit for bit.
    """

    def __init__(self, replay: Replay, rng: np.random.Generator) -> None:
        for name in ("capacity", "batch", "n_step", "stack"):
            if getattr(replay, name) < 1:
                raise UsageError(f"replay: {name} is {getattr(replay, name)}, must be at least 1")
        if not 0 <= replay.min_size <= replay.capacity:
            raise UsageError(f"replay: min_size is {replay.min_size}, must be from 0 to capacity ({replay.capacity})")
        self.replay = replay
        self._rng = rng
        self._obs: Observations | None = None
        self._transitions: Ring | None = None
        self._first = self._inserted = 0  # serial numbers of the oldest transition held and of the next to come
        self._tree = SumTree(replay.capacity) if replay.priority_alpha > 0 else None
        self._max_priority = 1.0

    def __len__(self) -> int:
        return self._inserted - self._first

    @property
    def inserted(self) -> int:
        """Transitions ever inserted."""
        return self._inserted

    @property
    def nbytes(self) -> int:
        """Bytes held; no rows before the first fragment."""
        return sum(part.nbytes for part in (self._obs, self._transitions, self._tree) if part)

    @property
    def beta(self) -> float:
        """The importance exponent, annealed linearly to 1 (Schaul et al. 2016, section 3.4)."""
        done = min(1.0, self._inserted / max(1, self.replay.beta_steps))
        return self.replay.priority_beta + (1.0 - self.replay.priority_beta) * done

    # --- in --------------------------------------------------------------------------------------------------------

    def insert(self, trajectory: Trajectory) -> int:
        """Add a fragment's transitions, the oldest making room; returns how many. New ones get the highest priority
        seen, so that each is drawn soon. Raises :class:`Rejected`, leaving the buffer as it was."""
        coming = chains.transitions(trajectory.arrays, self.replay.n_step, self.replay.gamma)
        count = len(coming["row"])
        if not count:
            return 0
        if self._obs is None or self._transitions is None:
            rows = observation_rows(self.replay.capacity, trajectory.T, trajectory.B)
            like = named.spread("obs", named.gathered(trajectory.arrays, "final_obs"))
            self._obs = Observations(rows, like, self.replay.stack)
            self._transitions = Ring(self.replay.capacity, coming)
        coming["row"] += self._obs.append(trajectory)
        self._transitions.append(coming)
        self._inserted += count
        self._drop(self._transitions, self._obs.oldest)
        if self._tree:
            new = np.arange(max(self._first, self._inserted - count), self._inserted)
            self._tree.set(new % self.replay.capacity, self._max_priority)
        return count

    def _drop(self, transitions: Ring, oldest_row: int) -> None:
        """Forget the transitions that were written over, and those whose observation was. (Rows and transitions come in
        the same order, and the state after is a later row: what is held is what came last.)"""
        before, self._first = self._first, max(self._first, transitions.oldest)
        if transitions.at("row", self._first) < oldest_row:
            serials = range(self._first, self._inserted)
            self._first += bisect_left(serials, oldest_row, key=lambda serial: transitions.at("row", serial))
        if self._tree:
            self._tree.set(np.arange(max(before, transitions.oldest), self._first) % self.replay.capacity, 0.0)

    # --- out -------------------------------------------------------------------------------------------------------

    def sample(self) -> tuple[Batch, Array]:
        """A minibatch, with replacement, and the serial numbers of its transitions (int64 [batch]) for
        :meth:`update_priorities`.

        Prioritised: P(i) = p_i / sum p, one draw from each of ``batch`` equal slices of the sum, and weights
        (N P(i))^-beta over their maximum in the minibatch (Schaul et al. 2016, section 3.4 and algorithm 1).
        """
        size, batch = len(self), self.replay.batch
        if self._obs is None or self._transitions is None or not size:
            raise ValueError("sample() from an empty replay buffer")
        if self._tree:
            total = self._tree.total
            slots = self._tree.find((np.arange(batch) + self._rng.random(batch)) * (total / batch))
            weight = (size / total * self._tree.get(slots)) ** -self.beta
            weight = (weight / weight.max()).astype(np.float32)
            latest = self._inserted - 1
            serials = latest - (latest - slots) % self.replay.capacity
        else:
            serials = self._first + self._rng.integers(size, size=batch)
            weight = np.ones(batch, np.float32)
        row, ahead, action, reward, discount = (self._transitions.take(name, serials) for name in TRANSITION)
        arrays = {
            **self._obs.at(row, "obs"),
            "action": action,
            "reward": reward,
            **self._obs.at(row + ahead, "next_obs"),
            "discount": discount,
            "weight": weight,
        }
        return Batch(arrays, steps=batch), serials

    def update_priorities(self, serials: Array, errors: Array) -> None:
        """Priority (|TD error| + eps)^alpha for the transitions ``serials``; those no longer held are passed over.
        Nothing happens where replay is uniform."""
        if self._tree is None:
            return
        held = serials >= self._first
        priorities = (np.abs(errors[held], dtype=np.float64) + PRIORITY_EPS) ** self.replay.priority_alpha
        self._tree.set(serials[held] % self.replay.capacity, priorities)
        self._max_priority = max(self._max_priority, float(priorities.max(initial=0.0)))

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Counters, generator and priorities (a copy), and the rows as blocks (no copy). It stays as it is while the
        buffer goes on."""
        values = {
            "inserted": self._inserted,
            "first": self._first,
            "max_priority": self._max_priority,
            "rng": generator_state(self._rng),
            "capacity": self.replay.capacity,
            "stacked": self.replay.stack > 1,
        }
        tensors = {}
        if self._tree:
            tensors["priority"] = self._tree.get(np.arange(min(self._inserted, self.replay.capacity)))
        if self._obs is None or self._transitions is None:
            return State(tensors, values)
        values["obs"], blocks = self._obs.state()
        return State(tensors, values, blocks | self._transitions.blocks("transitions"))

    def restore(self, state: State) -> None:
        """Go on from :meth:`state`. Raises :class:`UsageError` when it was saved with another replay configuration."""
        saved = state.values
        ours = (self.replay.capacity, self.replay.stack > 1, {"priority"} if self._tree else set())
        theirs = (saved["capacity"], saved["stacked"], set(state.tensors))
        if ours != theirs:
            raise UsageError(f"replay: the saved buffer holds {_named(*theirs)}, this configuration {_named(*ours)}")
        self._inserted, self._first = int(saved["inserted"]), int(saved["first"])
        self._max_priority = float(saved["max_priority"])
        self._rng = restore_generator(saved["rng"])
        self._obs = self._transitions = None
        if "obs" in saved:
            of_obs = {name: block for name, block in state.blocks.items() if name.startswith("obs.")}
            others = {name: block for name, block in state.blocks.items() if name not in of_obs}
            self._obs = Observations.restored(self.replay.stack, saved["obs"], of_obs)
            self._transitions = Ring.restored(self.replay.capacity, self._inserted, others)
        if self._tree:
            self._tree = SumTree(self.replay.capacity)
            self._tree.set(np.arange(len(state.tensors["priority"])), state.tensors["priority"])


def _named(capacity: int, stacked: bool, tensors: set[str]) -> str:
    """A buffer as a person is told it."""
    drawn = "by priority" if "priority" in tensors else "uniformly"
    return f"{capacity} transitions{' of stacked frames' if stacked else ''}, drawn {drawn}"


@dataclass
class SamplesPerInsert:
    """How many minibatches are due: keeps samples / inserts at ``samples_per_insert``.

    Transitions before ``min_size`` are free: they are never paid back, so training starts without a burst. What does
    not make a whole minibatch is carried on in ``owed`` (samples).
    """

    samples_per_insert: float
    batch: int
    min_size: int
    inserted: int = 0
    owed: float = 0.0

    def insert(self, count: int) -> int:
        """Note ``count`` inserted transitions; returns how many minibatches are due now."""
        before = max(self.inserted, self.min_size)
        self.inserted += count
        self.owed += max(0, self.inserted - before) * self.samples_per_insert
        due = int(self.owed // self.batch)
        self.owed -= due * self.batch
        return due
