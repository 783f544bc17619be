"""What an actor and an evaluator see of a task: a batch of environments that is stepped with arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.common.types import Array, Obs, Spaces


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step of B environments. Resets happen in the same step: where an episode ended, ``obs`` already is the first
    observation of the next one and ``final_obs`` holds what the ended one showed last.

    ``obs`` [B, ...] (by name where several things are shown), ``reward`` float32 [B], ``terminated``/``truncated``
    bool [B], ``final_obs`` [K, ...] for the K ended columns in order (None: nothing ended), ``valid`` bool [B] where
    some columns spent the step on their reset.
    ``own`` where wrappers stand between: what the environments themselves say.
    """

    obs: Obs
    reward: Array
    terminated: Array
    truncated: Array
    final_obs: Obs | None = None
    valid: Array | None = None
    own: Own | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """Beneath wrappers that change rewards or end episodes early: the environments' own ``reward`` (float64 [B]) and
    where an episode of theirs is over (``ended``, bool [B])."""

    reward: Array
    ended: Array


@dataclass(slots=True)
class Call:
    """The call into an environment that is under way, for whoever watches that it returns (actor/watchdog.py).

    ``index``: of the environment, -1 while none is called. ``count``: calls of the batch so far, so that two calls of
    the same environment are told apart.
    """

    count: int = 0
    index: int = -1


class EnvBatch(Protocol):
    """B environments of one task. ``reset`` and ``step`` raise :class:`EnvironmentFailed` for whatever goes wrong in
    them."""

    env_id: str
    spaces: Spaces
    call: Call

    def __len__(self) -> int: ...

    def reset(self, seeds: Sequence[int]) -> Obs:
        """Start a new episode in every environment; seeds as many as environments. Returns obs [B, ...]."""

    def step(self, action: Array) -> StepResult:
        """Take ``action``: [B] or [B, D] int64, or [B, D] float32 in [-1, 1] (types.py: Spaces.action)."""

    def reward_terms(self) -> Mapping[str, float]:
        """Reward a step since the last call, by term; empty where rewards are not shaped (shaping.py)."""

    def close(self) -> None: ...
