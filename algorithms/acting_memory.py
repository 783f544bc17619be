"""Policies that remember, as actors have them: a recurrent network between what is shown and any policy of acting.py.

    obs, state --> body --> LSTM or GRU --> next state --its first ``memory_width`` numbers--> the policy

The state is one array [B, S]: h and c of an LSTM side by side, h of a GRU; zeros before an episode's first step. The
network is run by ONNX Runtime (acting_onnx.py), under the name ``memory``; no torch. memory.py is the learner's half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headrace.algorithms.acting import check_network
from headrace.algorithms.base import MemoryOptions, NetworkOptions, Policy, PolicyOutput
from headrace.common import named
from headrace.common.errors import UsageError
from headrace.common.types import MASK, Array, Field, Layout, Obs, Spaces, Weights

if TYPE_CHECKING:
    from headrace.algorithms.acting_onnx import OnnxNet

#: Numbers of the state for each of ``memory_width``.
_STATES = {"lstm": 2, "gru": 1}
#: Of the observations' normaliser, which stands before the memory, not behind it.
_NORMALISER = ("obs_mean", "obs_scale")


def state_width(options: MemoryOptions) -> int:
    """S, the numbers in a state; 0 without a memory."""
    return _STATES[options.memory] * options.memory_width if options.memory else 0


def state_fields(options: MemoryOptions) -> dict[str, Field]:
    """What a fragment holds besides: the state before its first step; nothing without a memory."""
    return {"state": Field("float32", (state_width(options),), Layout.START)} if options.memory else {}


def behind(options: MemoryOptions, spaces: Spaces) -> tuple[NetworkOptions, Spaces]:
    """What networks see: linear layers over what is remembered; without a memory, what ``options`` asks for over what
    the environment shows. Raises :class:`UsageError` for environments whose steps are not a sequence."""
    if not options.memory:
        return options, spaces
    if spaces.marks_invalid:
        raise UsageError(
            f"algorithm.memory {options.memory!r}: a sequence cannot leave out the steps that EnvPool spends on "
            "resets; use task.backend = 'gymnasium'"
        )
    mask = {name: field for name, field in spaces.obs.items() if name == MASK}
    remembered = {"": Field("float32", (options.memory_width,)), **mask}
    return NetworkOptions(hidden=(), normalise_obs=False), replace(spaces, obs=remembered)


def remembering(options: MemoryOptions, spaces: Spaces, make: Callable[[NetworkOptions, Spaces], Policy]) -> Policy:
    """The policy that ``make`` makes, behind a memory where ``options`` asks for one. Raises :class:`UsageError`."""
    policy = make(*behind(options, spaces))
    if not options.memory:
        return policy
    check_network(options, spaces)
    from headrace.algorithms.acting_onnx import OnnxNet

    memory = OnnxNet("memory", spaces, state_width(options), state_width(options))
    return RecurrentPolicy(memory, options.memory_width, policy)


class RecurrentPolicy:
    """``memory``: obs [B, ...], state [B, S] -> the next state; ``policy`` acts on its first ``width`` numbers."""

    def __init__(self, memory: OnnxNet, width: int, policy: Policy) -> None:
        self.memory, self.width, self.policy = memory, width, policy

    def load(self, weights: Weights) -> None:
        self.memory.load(weights.tensors)
        tensors = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(_NORMALISER)}
        self.policy.load(replace(weights, tensors=tensors))

    def act(self, obs: Obs, state: Array | None, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        if state is None:
            rows = len(next(iter(named.parts(obs).values())))
            state = np.zeros((rows, self.memory.state_width), np.float32)
        after = self.memory(named.seen(obs), state)
        acted = self.policy.act(named.instead(after[:, : self.width], obs), None, rng, explore)
        return PolicyOutput(acted.action, acted.extras, after)
