"""Trajectory and Weights: the two things that travel. Frozen, typed, versioned; every field explained here once.

Array layouts inside a fragment of T steps in B environments (``Layout`` names them, a :class:`Schema` fixes them):

    STEP   [T, B, ...]     one entry a step: action, reward, terminated, truncated, behaviour_logp, valid
    CHAIN  [T + 1, B, ...] one entry a step plus the state after the last one: obs
    FINAL  [K, ...]        one entry per episode end inside the fragment, in (t, b) row-major order of
                           ``terminated | truncated``: final_obs, what the environment showed before its reset
    START  [B, ...]        one entry a column: state, the policy's before the fragment's first step

An environment that shows several things has an array for each: obs.image, obs.speed, final_obs.image, ... (named.py).
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from headrace.common.errors import UsageError

Array = np.ndarray
#: What an environment shows: one array, or one by each name (named.py).
Obs: TypeAlias = Array | Mapping[str, Array]

#: dtypes that may travel; anything else is rejected before it is looked at.
DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")
#: The observation that says which actions are allowed: networks do not see it, whoever chooses an action obeys it.
MASK = "action_mask"


class Layout(enum.Enum):
    """How the leading axes of an array relate to the fragment's T and B."""

    STEP = "step"
    CHAIN = "chain"
    FINAL = "final"
    START = "start"


@dataclass(frozen=True, slots=True)
class Field:
    """One named array of a trajectory: its dtype (a name from :data:`DTYPES`), trailing shape, and layout.

    ``below`` > 0: its values are whole numbers in [0, below); a tuple says it of each entry of a vector. ``start``:
    what the environment itself counts them from. (Neither is part of the schema's hash.)
    """

    dtype: str
    shape: tuple[int, ...] = ()
    layout: Layout = Layout.STEP
    below: int | tuple[int, ...] = 0
    start: int | tuple[int, ...] = 0

    @property
    def choices(self) -> tuple[int, ...]:
        """How many values each entry can have; none where it holds any numbers."""
        return self.below if isinstance(self.below, tuple) else (self.below,) if self.below else ()

    @property
    def is_vector(self) -> bool:
        """Whether it is a vector (or one number)."""
        return len(self.shape) <= 1

    @property
    def features(self) -> int:
        """Numbers that a network makes of it: those it holds, or as many as there are choices (one-hot)."""
        return sum(self.choices) or math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Of one entry."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Schema:
    """The arrays every trajectory of a run must hold, no more and no fewer."""

    fields: Mapping[str, Field]

    @property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of a canonical text of the fields."""
        lines = [f"{n} {f.dtype} {list(f.shape)} {f.layout.value}" for n, f in sorted(self.fields.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Spaces:
    """What an environment shows and takes, as far as an algorithm must know.

    ``obs``: the arrays of an observation by name. One that has no name stands under "", and with it, or with others,
    there may be a mask, under :data:`MASK`: bool, an entry for each choice of ``action``.
    ``action``: whole numbers (Discrete: one; MultiDiscrete, MultiBinary: a vector), or a float32 vector (Box): policies
    act in [-1, 1] per dimension, and the task maps that onto the bounds of the environment.
    ``marks_invalid``: the environments spend a step on each reset (EnvPool does), so trajectories hold a ``valid``
    array that says which steps are experience.
    """

    obs: Mapping[str, Field]
    action: Field
    marks_invalid: bool = False

    @classmethod
    def box(cls, shape: tuple[int, ...], dtype: str = "float32", *, n_actions: int = 0, action_dim: int = 0) -> Spaces:
        """The plain case: one Box is shown; taken are one of ``n_actions``, or a vector of ``action_dim``."""
        action = Field("int64", below=n_actions) if n_actions else Field("float32", (action_dim,))
        return cls({"": Field(dtype, shape)}, action)

    @property
    def seen(self) -> Mapping[str, Field]:
        """What a network sees of ``obs``: all but the mask."""
        return {name: field for name, field in self.obs.items() if name != MASK}

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Of the one array that is shown. Raises :class:`UsageError` where there are several."""
        return self._only.shape

    @property
    def obs_dtype(self) -> str:
        """Of the one array that is shown. Raises :class:`UsageError` where there are several."""
        return self._only.dtype

    @property
    def _only(self) -> Field:
        if len(self.obs) != 1:
            shown = ", ".join(name or "an observation" for name in self.obs)
            raise UsageError(f"task.env shows {shown}; this algorithm takes one array (it asked for spaces.obs_shape)")
        return next(iter(self.obs.values()))

    @property
    def is_vector(self) -> bool:
        """Whether all that a network sees makes one vector."""
        return all(field.is_vector for field in self.seen.values())

    @property
    def features(self) -> int:
        """Numbers in that vector; in the plain case, numbers in an observation."""
        return sum(field.features for field in self.seen.values())

    @property
    def discrete(self) -> bool:
        """Whether an action is one whole number (Discrete)."""
        return self.n_actions > 0

    @property
    def n_actions(self) -> int:
        """Of Discrete; else 0."""
        return self.action.below if isinstance(self.action.below, int) else 0

    @property
    def action_dim(self) -> int:
        """Numbers in an action of a Box; else 0."""
        return 0 if self.action.choices else self.action.features

    @property
    def outputs(self) -> int:
        """Numbers a policy network gives: a logit per choice, or a mean per dimension."""
        return self.action.features


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode that ended inside the fragment: its undiscounted return and its length in steps."""

    ret: float
    length: int


@dataclass(frozen=True)
class Trajectory:
    """A fragment of experience, stamped with where it comes from.

    ``actor_id`` names the rollout worker (stable over restarts), ``incarnation`` the process life that
    collected it (random, 63 bits), ``seq`` counts that life's fragments from 0. ``policy_version`` is the oldest
    version used in it, ``lease`` the number of the lease under which it was begun (paramserver/ledger.py).
    Every array is C-contiguous, little-endian and read-only once it has travelled.
    """

    run_id: str
    learner_epoch: int
    actor_id: int
    incarnation: int
    seq: int
    policy_version: int
    lease: int
    task_id: str
    schema_hash: str
    T: int
    B: int
    arrays: Mapping[str, Array]
    episodes: tuple[Episode, ...] = ()

    @property
    def steps(self) -> int:
        """Environment steps held: T * B, less those marked invalid (``valid`` is optional)."""
        valid = self.arrays.get("valid")
        return self.T * self.B if valid is None else int(np.count_nonzero(valid))

    @property
    def nbytes(self) -> int:
        """Bytes of array payload."""
        return sum(a.nbytes for a in self.arrays.values())


@dataclass(frozen=True)
class Weights:
    """What an actor needs to act: tensors by name, and scalars (epsilon, noise scale, temperature).

    ``version`` counts the learner's updates; ``learner_epoch`` rises with every start of the learner, so that an
    old learner coming back is recognised. Observation normalisers are tensors like any other. ``env_steps`` and
    ``trained_s`` say when in the training it was made, for whoever evaluates it; None: not known.
    """

    run_id: str
    learner_epoch: int
    version: int
    tensors: Mapping[str, Array]
    scalars: Mapping[str, float] = field(default_factory=dict)
    env_steps: int | None = None
    trained_s: float | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to collect one more fragment: its number, and newer weights if there are any."""

    number: int
    learner_epoch: int
    weights: Weights | None
