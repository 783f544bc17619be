"""The interfaces between acting, learning and experience. An algorithm *declares* its experience; the learner keeps it.

    policy = algorithm_class.policy(spec)          # an actor: numpy, no torch
    acted = policy.act(obs, state, rng, explore=True)

    algorithm = algorithm_class(config, spec, seed, device)      # the learner
    while running:
        batch = experience.next()                  # shaped by algorithm.experience
        result = algorithm.update(batch)
        weights = algorithm.weights()

Importing an algorithm's module must not import torch (an actor reads its config and its policy); building the learning
half may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le
from pydantic.dataclasses import dataclass as pydantic_dataclass

from headrace.common import named
from headrace.common.types import Array, Obs, Schema, Weights

if TYPE_CHECKING:
    import torch

#: What an environment showed, on the learner's device: one tensor, or one by each name (common/named.py).
Tensors: TypeAlias = "torch.Tensor | Mapping[str, torch.Tensor]"

# --- the numbers of a Config: pydantic holds their ranges wherever one is made ---------------------------------------

Share = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]

# --- what every algorithm with a network lets choose -----------------------------------------------------------------


@pydantic_dataclass(frozen=True)
class NetworkOptions:
    """The part of a Config that says which network (networks.py)."""

    network: str = "mlp"
    """mlp, nature_cnn, impala_cnn, or package.module:Class, a torch.nn.Module that is made with the shape of an
    observation (and ``network_kwargs``) and gives features, float [B, F], for observations [B, ...]. Where there are
    several, the named one is that of the images; vectors have an MLP. A class of one's own is then made with shapes by
    name and called with tensors by name."""
    network_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of a network of one's own."""
    hidden: tuple[Count, ...] = (64, 64)
    """Widths of the linear layers; after the convolutions where there are any."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Of an MLP."""
    layer_norm: bool = False
    """Layer normalisation before each activation of an MLP (Ba et al. 2016)."""
    normalise_obs: bool = True
    """Shift and scale vectors by their running mean and deviation (they travel with the weights)."""


@pydantic_dataclass(frozen=True)
class FrameOptions(NetworkOptions):
    """The part of a Config that lets it stack frames (frame_stack.py)."""

    frame_stack: Count = 1
    """Images the network is shown at a time: the last so many of an episode, each sent and stored once. One frame says
    where things are, and not where they go."""


@pydantic_dataclass(frozen=True)
class MemoryOptions(NetworkOptions):
    """The part of a Config that lets it remember (memory.py)."""

    memory: Literal["", "lstm", "gru"] = ""
    """lstm or gru: the network's features go through one, and policy and critic are linear layers over what it
    remembers of the episode."""
    memory_width: Count = 64
    """Width of the LSTM or GRU."""


# --- the kinds of experience ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnPolicy:
    """Update ``version + 1`` is made from ``fragments`` fragments, each used in one update only."""

    fragments: int


@dataclass(frozen=True)
class Groups:
    """Each fragment is one group: ``size`` episodes from the same reset seed, run to their end (at most ``max_steps``
    each). Update ``version + 1`` is made from ``groups`` of them."""

    groups: int
    size: int
    max_steps: int


@dataclass(frozen=True)
class Replay:
    """Fragments go into a buffer of ``capacity`` transitions (fewer while episodes are shorter than some 16 steps:
    each end stores an observation more, and the memory is fixed). After every ``fragments`` fragments a round of
    minibatches of ``batch`` transitions follows, as many as keep samples / inserts at ``samples_per_insert`` (the
    remainder is carried on). No sampling before ``min_size`` transitions are in; those do not count as inserts to be
    paid back.

    ``priority_alpha`` 0 is uniform replay; > 0 is proportional prioritised replay (Schaul et al. 2016, section 3.3),
    with the importance exponent annealed linearly from ``priority_beta`` to 1 over ``beta_steps`` inserted transitions.
    ``n_step`` and ``gamma`` give the n-step return (Sutton & Barto, eq. 7.1).

    ``stack`` > 1: observations are handed out as the last ``stack`` of their episode, oldest first, zeros before its
    beginning (Mnih et al. 2015). Fragments hold single ones: what acts stacks for itself. A stack reaches back into the
    actor's fragment before, where the buffer still holds it."""

    capacity: int
    batch: int
    samples_per_insert: float
    fragments: int = 1
    min_size: int = 1000
    n_step: int = 1
    gamma: float = 0.99
    priority_alpha: float = 0.0
    priority_beta: float = 0.4
    beta_steps: int = 100_000
    stack: int = 1


@dataclass(frozen=True)
class Sequences:
    """Columns of fragments, with the state before them (layout START), go into a buffer of ``capacity`` of them and are
    drawn uniformly, ``batch`` to a minibatch. The other numbers are those of :class:`Replay`, counted in columns."""

    capacity: int
    batch: int
    samples_per_insert: float
    fragments: int = 1
    min_size: int = 100


Experience = OnPolicy | Groups | Replay | Sequences


# --- what is handed to update --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Arrays for one update, by name.

    OnPolicy: the trajectories' arrays joined along B; FINAL arrays keep row order of ``final_t``/``final_b``
    (int64 [K]), the time and column of each episode end.
    Groups: STEP arrays flattened over valid steps to [N, ...], with ``episode`` (int64 [N], which episode a step
    belongs to), ``episode_return`` (float64 [episodes]) and ``episode_group`` (int64 [episodes]).
    Replay: ``obs``, ``action``, ``reward`` (the n-step return), ``next_obs``, ``discount`` (gamma^n, 0 where
    terminated), ``weight`` (importance weights, 1 where uniform), each [batch, ...]; observations [batch, stack, ...]
    where they are stacked.
    Sequences: a fragment's arrays, ``batch`` columns side by side, without the FINAL ones.

    An environment that shows several things has ``obs.image``, ``obs.speed``, ... instead of ``obs``; ``batch["obs"]``
    is the one array, or a mapping of all of them.
    """

    arrays: Mapping[str, Array]
    steps: int = 0

    def __getitem__(self, name: str) -> Obs:
        found: Obs = named.gathered(self.arrays, name)
        return found


@dataclass(frozen=True)
class Result:
    """What an update reports: scalars for the metrics, and new priorities (|TD error|, float [batch]) if it has any."""

    metrics: Mapping[str, float]
    priorities: Array | None = None


class Block:
    """Arrays by name, as they were when a state was taken, though they are not copied; in memory or in a file.

    Whoever holds the memory keeps the block from state to state while the arrays stay as they are, and calls
    :meth:`detach` before they change. ``sha256`` is that of the file which holds them, "" while there is none: the next
    checkpoint need not write it again.
    """

    def __init__(self, arrays: Mapping[str, Array] | Callable[[], Mapping[str, Array]], sha256: str = "") -> None:
        self._arrays, self.sha256 = arrays, sha256

    def read(self) -> Mapping[str, Array]:
        """The arrays: views, or what the file holds."""
        return self._arrays() if callable(self._arrays) else self._arrays

    def detach(self) -> None:
        """The arrays will change: what nobody has saved yet is copied."""
        self._arrays = _gone if self.sha256 else {name: array.copy() for name, array in self.read().items()}


def _gone() -> Mapping[str, Array]:
    raise RuntimeError("this block was saved, and what it was a view of has changed since: read the file")


@dataclass(frozen=True)
class State:
    """Everything needed to go on: tensors (numpy, saved as safetensors), JSON-able values (counters, RNG), and blocks:
    pieces of arrays too large to be copied, most of which are the same in the next state."""

    tensors: Mapping[str, Array]
    values: Mapping[str, Any] = field(default_factory=dict)
    blocks: Mapping[str, Block] = field(default_factory=dict)


# --- the two halves ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicyOutput:
    """``action`` [B, ...] to give to the environments; ``extras`` to record beside it (e.g. behaviour_logp [B]);
    ``state`` [B, ...], one array, what the policy remembers from here on (None: it has no memory). The array is the
    caller's, who makes the rows zero whose episode ends."""

    action: Array
    extras: Mapping[str, Array]
    state: Array | None = None


class Policy(Protocol):
    """The acting half: actor and evaluator hold one."""

    def act(self, obs: Obs, state: Array | None, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        """Actions for a batch of observations [B, ...] (by name where the environment shows several things); greedy
        where ``explore`` is False. ``state`` [B, ...] is what it returned one step before, zeros in the rows whose
        episode begins; None where all of them do."""

    def load(self, weights: Weights) -> None:
        """Take over a version. Raises :class:`UsageError` when names or shapes do not fit."""


class Algorithm(Protocol):
    """The learning half: only the learner holds one."""

    experience: Experience
    schema: Schema

    def update(self, batch: Batch) -> Result: ...

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        """Tensors and scalars for actors (no critic, no optimiser)."""

    def progress(self, fraction: float) -> None:
        """Tell the schedules how much of the run is done, 0 to 1. Called before every round of updates."""

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...
