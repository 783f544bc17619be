"""Stacks of frames (Mnih et al. 2015): a network is shown the last k observations of an episode, oldest first, zeros
before its beginning; every frame is stored and sent once.

    actor     state [B, k - 1, ...], the frames before; shows its network state and obs, and keeps the last k - 1
    wire      obs [T + 1, B, ...], single frames; state [B, k - 1, ...], those before the fragment's first (START)
    learner   stacks(obs, state, begins): what each actor showed its network, to the bit
    replay    makes its own (learner/observations.py), from the fragment before: nothing is sent for it

Legend: T steps, B environments, k frames. Importing this file costs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.algorithms.base import Batch, Policy, PolicyOutput
from headrace.common.errors import UsageError
from headrace.common.types import Array, Field, Layout, Spaces, Weights

if TYPE_CHECKING:
    import torch


def stacked(spaces: Spaces, k: int) -> Spaces:
    """What the network is shown. Raises :class:`UsageError` for observations that are no images."""
    if k == 1:
        return spaces
    shown = ", ".join(f"{name} {field.dtype}{list(field.shape)}".strip() for name, field in spaces.obs.items())
    if spaces.obs.keys() != {""} or spaces.is_vector:
        raise UsageError(f"algorithm.frame_stack = {k} stacks one image, and observations are {shown}; leave it at 1")
    return replace(spaces, obs={"": replace(spaces.obs[""], shape=(k, *spaces.obs_shape))})


def fields(spaces: Spaces, k: int) -> dict[str, Field]:
    """What a fragment holds besides its observations: the frames before the first one."""
    return {} if k == 1 else {"state": Field(spaces.obs_dtype, (k - 1, *spaces.obs_shape), Layout.START)}


def acting(policy: Policy, spaces: Spaces, k: int) -> Policy:
    """``policy``, which takes :func:`stacked` observations, as one that takes single ones."""
    return policy if k == 1 else StackedPolicy(policy, spaces, k)


class StackedPolicy:
    """Its state is the last k - 1 frames [B, k - 1, ...]."""

    def __init__(self, policy: Policy, spaces: Spaces, k: int) -> None:
        self.policy, self.k = policy, k
        self._before = (k - 1, *spaces.obs_shape)

    def load(self, weights: Weights) -> None:
        self.policy.load(weights)

    def act(self, obs: Any, state: Array | None, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        before = np.zeros((len(obs), *self._before), obs.dtype) if state is None else state
        stack = np.concatenate([before, obs[:, None]], axis=1)
        return replace(self.policy.act(stack, None, rng, explore), state=stack[:, 1:])


# --- the learning half ---------------------------------------------------------------------------------------------


def shown(batch: Batch, k: int, tensor: Callable[[Any], Any]) -> tuple[Any, Any]:
    """``obs`` [T + 1, B, ...] and ``final_obs`` [K, ...] of an on-policy batch as the network is shown them. ``tensor``
    puts an array onto the learner's device: single frames, which are stacked there."""
    import torch

    obs, final, arrays = tensor(batch["obs"]), tensor(batch["final_obs"]), batch.arrays
    if k == 1:
        return obs, final
    obs = stacks(obs, tensor(arrays["state"]), tensor(begins(arrays)))
    t, b = tensor(arrays["final_t"]), tensor(arrays["final_b"])
    return obs, torch.cat([obs[t, b][:, 1:], final[:, None]], 1)


def stacks(obs: torch.Tensor, state: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
    """obs [T, B, ...], state [B, k - 1, ...] and begins, bool [T, B] -> [T, B, k, ...]."""
    import torch

    k = state.shape[1] + 1
    frames = torch.cat([state.transpose(0, 1), obs]).unfold(0, k, 1).movedim(-1, 2)
    # Two frames are of one episode if as many episodes had begun at the one as at the other.
    begun = torch.cat([begins.new_zeros(k - 1, begins.shape[1]), begins]).cumsum(0).unfold(0, k, 1)
    other = begun != begun[..., -1:]
    return frames.masked_fill(other.reshape(*other.shape, *[1] * (frames.ndim - 3)), 0).contiguous()


def begins(arrays: Mapping[str, Array]) -> Array:
    """The observations with which an episode begins, bool [T + 1, B]: those after an end, and after a step that the
    environment spent on its reset. (Of a fragment's first ones the ``state`` knows.)"""
    ended: Array = arrays["terminated"] | arrays["truncated"]
    if "valid" in arrays:
        ended = ended | ~arrays["valid"]
    return np.concatenate([np.zeros_like(ended[:1]), ended])
