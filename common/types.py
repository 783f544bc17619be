"""Trajectory and Weights: the two things that travel. Frozen, typed, versioned; every field explained here once.

Array layouts inside a fragment of T steps in B environments (``Layout`` names them, a :class:`Schema` fixes them):

    STEP   [T, B, ...]     one entry a step: action, reward, terminated, truncated, behaviour_logp, valid
    CHAIN  [T + 1, B, ...] one entry a step plus the state after the last one: obs
    FINAL  [K, ...]        one entry per episode end inside the fragment, in (t, b) row-major order of
                           ``terminated | truncated``: final_obs, what the environment showed before its reset
    START  [B, ...]        one entry a column: state, the policy's before the fragment's first step
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray

#: dtypes that may travel; anything else is rejected before it is looked at.
DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")


class Layout(enum.Enum):
    """How the leading axes of an array relate to the fragment's T and B."""

    STEP = "step"
    CHAIN = "chain"
    FINAL = "final"
    START = "start"


@dataclass(frozen=True, slots=True)
class Field:
    """One named array of a trajectory: its dtype (a name from :data:`DTYPES`), trailing shape, and layout.

    ``below`` > 0: its values are whole numbers in [0, below). (Not part of the schema's hash.)
    """

    dtype: str
    shape: tuple[int, ...] = ()
    layout: Layout = Layout.STEP
    below: int = 0


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

    ``obs_shape``/``obs_dtype`` of one observation. Exactly one kind of action: ``n_actions`` > 0 for Discrete,
    else ``action_dim`` > 0 for Box. Policies act in [-1, 1] per dimension; the task maps that onto the bounds of the
    environment. ``marks_invalid``: the environments spend a step on each reset (EnvPool does), so trajectories hold a
    ``valid`` array that says which steps are experience.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: str = "float32"
    n_actions: int = 0
    action_dim: int = 0
    marks_invalid: bool = False

    @property
    def discrete(self) -> bool:
        return self.n_actions > 0

    @property
    def is_vector(self) -> bool:
        """Whether an observation is a vector (or one number)."""
        return len(self.obs_shape) <= 1

    @property
    def features(self) -> int:
        """Numbers in an observation."""
        return math.prod(self.obs_shape)

    @property
    def outputs(self) -> int:
        """Numbers a policy network gives: a logit per action, or a mean per dimension."""
        return self.n_actions or self.action_dim


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
    old learner coming back is recognised. Observation normalisers are tensors like any other.
    """

    run_id: str
    learner_epoch: int
    version: int
    tensors: Mapping[str, Array]
    scalars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to collect one more fragment: its number, and newer weights if there are any."""

    number: int
    learner_epoch: int
    weights: Weights | None
