"""Replay: a bounded ring of n-step transitions built from fragments, drawn uniformly or by priority.

    fragment --n_step_transitions--> transitions --insert--> ring [capacity] --sample--> Batch
                                                     priorities ^--- update_priorities <--- |TD error|

Fragments are independent of each other, so they may arrive in any order and from any number of actors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.algorithms.base import Batch, Replay, State
from headrace.common.errors import Rejected, UsageError
from headrace.common.seeding import generator_state, restore_generator
from headrace.common.types import Array, Spaces, Trajectory
from headrace.learner.sum_tree import SumTree, tree_nodes

#: Added to |TD error| so that no transition is starved for ever (Schaul et al. 2016, section 3.3).
PRIORITY_EPS = 1e-6

COLUMNS = ("obs", "action", "reward", "next_obs", "discount")


def n_step_transitions(arrays: Mapping[str, Array], n_step: int, gamma: float) -> dict[str, Array]:
    """All valid transitions of one fragment, in (t, b) row-major order.

    Takes ``obs`` [T+1, B, ...], ``action`` [T, B, ...], ``reward``, ``terminated``, ``truncated`` [T, B], ``final_obs``
    [K, ...] and, where there is one, ``valid`` [T, B]. Returns N rows of

        obs, action   where the window begins
        reward        sum over i < k of gamma^i r_{t+i}, float32 (Sutton & Barto, eq. 7.1)
        next_obs      the state k steps on: ``final_obs`` where the window ends with its episode, else ``obs``
        discount      gamma^k, and 0 where the window ends in a terminal state, float32

    with k = ``n_step``, less where the episode or the fragment ends sooner, or an invalid step follows. At the
    fragment's end the window is cut short and bootstraps from the last observation: no step waits for another fragment.
    Raises :class:`Rejected` when ``final_obs`` does not have one row per episode end.
    """
    reward, terminated = arrays["reward"], arrays["terminated"]
    ended = terminated | arrays["truncated"]
    final_obs = arrays["final_obs"]
    if len(final_obs) != np.count_nonzero(ended):
        raise Rejected("shape", f"final_obs has {len(final_obs)} rows for {np.count_nonzero(ended)} episode ends")
    T = len(reward)
    valid = arrays["valid"] if "valid" in arrays else np.ones_like(ended)

    returns = np.zeros(reward.shape)
    length = np.zeros(reward.shape, np.int64)
    running = np.ones_like(ended)  # windows that go on at step t + i
    for i in range(min(n_step, T)):
        grows = running[: T - i] & valid[i:]
        returns[: T - i] += np.where(grows, gamma**i * reward[i:], 0.0)
        length[: T - i] += grows
        running[: T - i] = grows & ~ended[i:]

    t, b = np.nonzero(valid)
    length = length[t, b]
    last = t + length - 1
    next_obs = arrays["obs"][last + 1, b]
    at_end = ended[last, b]
    row = np.cumsum(ended.ravel()).reshape(ended.shape) - 1
    next_obs[at_end] = final_obs[row[last[at_end], b[at_end]]]
    return {
        "obs": arrays["obs"][t, b],
        "action": arrays["action"][t, b],
        "reward": returns[t, b].astype(np.float32),
        "next_obs": next_obs,
        "discount": np.where(terminated[last, b], 0.0, gamma**length).astype(np.float32),
    }


def replay_nbytes(spaces: Spaces, capacity: int, prioritised: bool = False) -> int:
    """Bytes a :class:`ReplayBuffer` will hold: known before anything is allocated.

    Actions are int64 where discrete, else float32 [action_dim], as the algorithms' schemas have them.
    """
    obs = int(np.prod(spaces.obs_shape)) * np.dtype(spaces.obs_dtype).itemsize
    action = 8 if spaces.discrete else 4 * spaces.action_dim
    tree = 8 * tree_nodes(capacity) if prioritised else 0
    return capacity * (2 * obs + action + 4 + 4) + tree


class ReplayBuffer:
    """The ring. Transitions are known by their serial number, counted from 0 as they came in; the ring holds the latest
    ``capacity`` of them. Memory is taken in whole at the first fragment, and touched, so that it does not grow later.

    ``rng`` is the buffer's own: it is saved and restored with it, so the samples go on bit for bit.
    """

    def __init__(self, replay: Replay, rng: np.random.Generator) -> None:
        for name in ("capacity", "batch", "n_step"):
            if getattr(replay, name) < 1:
                raise UsageError(f"replay: {name} is {getattr(replay, name)}, must be at least 1")
        if not 0 <= replay.min_size <= replay.capacity:
            raise UsageError(f"replay: min_size is {replay.min_size}, must be from 0 to capacity ({replay.capacity})")
        self.replay = replay
        self._rng = rng
        self._columns: dict[str, Array] = {}
        self._inserted = 0
        self._tree = SumTree(replay.capacity) if replay.priority_alpha > 0 else None
        self._max_priority = 1.0

    def __len__(self) -> int:
        return min(self._inserted, self.replay.capacity)

    @property
    def inserted(self) -> int:
        """Transitions ever inserted."""
        return self._inserted

    @property
    def nbytes(self) -> int:
        """Bytes held; 0 columns before the first fragment."""
        return sum(c.nbytes for c in self._columns.values()) + (self._tree.nbytes if self._tree else 0)

    @property
    def beta(self) -> float:
        """The importance exponent, annealed linearly to 1 (Schaul et al. 2016, section 3.4)."""
        done = min(1.0, self._inserted / max(1, self.replay.beta_steps))
        return self.replay.priority_beta + (1.0 - self.replay.priority_beta) * done

    def insert(self, trajectory: Trajectory) -> int:
        """Add a fragment's transitions, the oldest making room; returns how many. New ones get the highest priority
        seen, so that each is drawn soon. Raises :class:`Rejected`, leaving the buffer as it was."""
        transitions = n_step_transitions(trajectory.arrays, self.replay.n_step, self.replay.gamma)
        count = len(transitions["reward"])
        if count:
            self._append(transitions, count)
        return count

    def _append(self, transitions: Mapping[str, Array], count: int) -> None:
        if not self._columns:
            self._columns = {name: _touched(self.replay.capacity, column) for name, column in transitions.items()}
        kept = min(count, self.replay.capacity)  # of a fragment larger than the ring only its end stays
        slots = np.arange(self._inserted + count - kept, self._inserted + count) % self.replay.capacity
        for name, column in transitions.items():
            self._columns[name][slots] = column[count - kept :]
        if self._tree:
            self._tree.set(slots, self._max_priority)
        self._inserted += count

    def sample(self) -> tuple[Batch, Array]:
        """A minibatch, with replacement, and the serial numbers of its transitions (int64 [batch]) for
        :meth:`update_priorities`.

        Prioritised: P(i) = p_i / sum p, one draw from each of ``batch`` equal slices of the sum, and weights
        (N P(i))^-beta over their maximum in the minibatch (Schaul et al. 2016, section 3.4 and algorithm 1).
        """
        size, batch = len(self), self.replay.batch
        if not size:
            raise ValueError("sample() from an empty replay buffer")
        if self._tree:
            total = self._tree.total
            slots = self._tree.find((np.arange(batch) + self._rng.random(batch)) * (total / batch))
            weight = (size / total * self._tree.get(slots)) ** -self.beta
            weight = (weight / weight.max()).astype(np.float32)
        else:
            slots = self._rng.integers(size, size=batch)
            weight = np.ones(batch, np.float32)
        arrays = {name: column[slots] for name, column in self._columns.items()}
        arrays["weight"] = weight
        latest = self._inserted - 1
        return Batch(arrays, steps=batch), latest - (latest - slots) % self.replay.capacity

    def update_priorities(self, serials: Array, errors: Array) -> None:
        """Priority (|TD error| + eps)^alpha for the transitions ``serials``; those no longer held are passed over.
        Nothing happens where replay is uniform."""
        if self._tree is None:
            return
        held = serials >= self._inserted - self.replay.capacity
        priorities = (np.abs(errors[held], dtype=np.float64) + PRIORITY_EPS) ** self.replay.priority_alpha
        self._tree.set(serials[held] % self.replay.capacity, priorities)
        self._max_priority = max(self._max_priority, float(priorities.max(initial=0.0)))

    def state(self) -> State:
        """Columns of the rows in use, priorities, counters, generator; copies, so that writing may take its time."""
        size = len(self)
        tensors = {name: column[:size].copy() for name, column in self._columns.items()}
        if self._tree:
            tensors["priority"] = self._tree.get(np.arange(size))
        rng = generator_state(self._rng)
        return State(tensors, {"inserted": self._inserted, "max_priority": self._max_priority, "rng": rng})

    def restore(self, state: State) -> None:
        """Go on from :meth:`state`. Raises :class:`UsageError` when it was saved with another replay configuration."""
        inserted = int(state.values["inserted"])
        size = min(inserted, self.replay.capacity)
        wanted = (set(COLUMNS) if size else set()) | ({"priority"} if self._tree else set())
        lengths = {name: len(tensor) for name, tensor in state.tensors.items()}
        if lengths != dict.fromkeys(wanted, size):
            raise UsageError(
                f"replay: the saved buffer holds {lengths}, this configuration needs {size} of {sorted(wanted)}"
            )
        self._inserted = inserted
        self._columns = {name: _touched(self.replay.capacity, state.tensors[name]) for name in wanted - {"priority"}}
        for name, column in self._columns.items():
            column[:size] = state.tensors[name]
        if self._tree:
            self._tree = SumTree(self.replay.capacity)
            self._tree.set(np.arange(size), state.tensors["priority"])
        self._max_priority = float(state.values["max_priority"])
        self._rng = restore_generator(state.values["rng"])


def _touched(capacity: int, like: Array) -> Array:
    """Rows for ``capacity`` entries like those of ``like``, their pages in memory (np.zeros would put that off)."""
    column = np.empty((capacity, *like.shape[1:]), like.dtype)
    column.fill(0)
    return column


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
