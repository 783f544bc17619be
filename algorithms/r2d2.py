"""R2D2: double Q-learning with a recurrent network, from replay of sequences (Kapturowski et al. 2019).

    h_t  = memory(s_t, h_{t-1})                                  from the state the actor had before the sequence
    y_t  = r_t + gamma Q_target(h'_{t+1}, argmax_a Q(h_{t+1}, a))
    loss = mean over t >= burn_in of huber(Q(h_t, a_t) - y_t)    no gradient flows into the first burn_in steps

A sequence is a column of a fragment, ``actors.fragment_steps`` long. The state it begins with is stale; the burn-in
brings it up to date with the network. Uniform replay and one-step returns: the paper's priorities, n-step returns and
rescaled values are left out. A step that truncates an episode teaches nothing: what followed it is not stored.

Legend: T steps, M sequences of a minibatch, A actions, S numbers in a state.
Importing this file costs no torch: an actor reads ``Config``, ``schema`` and ``policy`` from it.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge
from pydantic.dataclasses import dataclass

from headrace.algorithms.acting import EpsilonGreedyPolicy, acting_net, env_schema
from headrace.algorithms.acting_memory import behind, remembering, state_fields
from headrace.algorithms.base import (
    Batch,
    Count,
    MemoryOptions,
    NotNegative,
    Policy,
    Positive,
    Result,
    Sequences,
    Share,
    State,
    Tensors,
)
from headrace.algorithms.device import CPU, Device
from headrace.algorithms.dqn import actions, td_target
from headrace.algorithms.minibatches import linear
from headrace.algorithms.saving import Stateful
from headrace.common import named
from headrace.common.errors import UsageError
from headrace.common.seeding import stream
from headrace.common.types import Array, Schema, Spaces

if TYPE_CHECKING:
    import torch

    from headrace.algorithms.memory import Memory
    from headrace.algorithms.networks import Net

#: What a gradient step takes, and the figures it gives.
_SEQUENCE = ("action", "reward", "terminated", "truncated")
_FIGURES = ("loss", "td_error", "q", "grad_norm")


@dataclass(frozen=True)
class Config(MemoryOptions):
    """Hyper-parameters of R2D2. The defaults learn CartPole without its velocities."""

    memory: Literal["lstm", "gru"] = "lstm"
    """What remembers the episode."""
    burn_in: Annotated[int, Ge(0)] = 8
    """Steps at a sequence's beginning that only bring the state up to date."""
    fragments: Count = 1
    """Fragments between two rounds of gradient steps; weights are published after each round."""
    minibatch: Count = 32
    """Sequences per gradient step."""
    samples_per_insert: NotNegative = 32.0
    """How many times a sequence is drawn on average."""
    capacity: Count = 4000
    """Sequences the replay buffer holds."""
    min_size: Annotated[int, Ge(0)] = 100
    """Sequences to collect before the first gradient step."""
    learning_rate: Share = 1e-3
    """Adam's step size at the start."""
    learning_rate_end: Share = 0.0
    """Adam's step size at the end of the run, reached linearly."""
    gamma: Share = 0.99
    """Discount."""
    tau: Share = 0.01
    """Share of the online network that the target network takes over at each gradient step."""
    max_grad_norm: Positive = 10.0
    """Gradients are scaled down to this norm."""
    epsilon_start: Share = 1.0
    """Share of random actions at the start."""
    epsilon_end: Share = 0.02
    """Share of random actions from ``epsilon_fraction`` of the run on."""
    epsilon_fraction: Share = 0.2
    """Part of the run over which epsilon falls, linearly."""

    @property
    def experience(self) -> Sequences:
        return Sequences(self.capacity, self.minibatch, self.samples_per_insert, self.fragments, self.min_size)

    def epsilon(self, fraction: float) -> float:
        """Share of random actions when ``fraction`` of the run is done."""
        done = 1.0 if fraction >= self.epsilon_fraction else fraction / self.epsilon_fraction
        return linear(self.epsilon_start, self.epsilon_end, done)


def schema(config: Config, spaces: Spaces) -> Schema:
    """A fragment holds what the environment showed, what was done, and the state before."""
    return env_schema(spaces, state_fields(config))


def policy(config: Config, spaces: Spaces) -> Policy:
    """The acting half. Raises :class:`UsageError` for spaces that Q-learning cannot serve."""
    n, epsilon = actions("R2D2", spaces), config.epsilon_start
    return remembering(
        config, spaces, lambda net, seen: EpsilonGreedyPolicy(acting_net("q", net, seen, n), n, False, epsilon)
    )


# --- the learning half ---------------------------------------------------------------------------------------------


class R2D2(Stateful):
    """The online and the target network, optimiser and normaliser; ``update`` is one gradient step."""

    def __init__(self, config: Config, spaces: Spaces, seed: int, device: Device = CPU) -> None:
        from headrace.algorithms import memory, networks, normalise, optimise

        self.config, self.experience, self.schema = config, config.experience, schema(config, spaces)
        self.device = device
        self.memory = memory.Memory(config, spaces, stream(seed, "init", "memory")).to(device.name)
        self.q = networks.make(*behind(config, spaces), spaces.n_actions, stream(seed, "init", "q")).to(device.name)
        self.target_memory, self.target = copy.deepcopy(self.memory), copy.deepcopy(self.q)
        self._online = optimise.Flat(self.memory, self.q)
        self._target = optimise.Flat(self.target_memory, self.target)
        self.adam = optimise.Adam(self._online)
        self.obs_norm = normalise.make(spaces, config.normalise_obs).to(device.name)
        self._loss, self._step = device.compiled(self._td_loss), device.recorded(self._gradient_step)
        self.progress(0.0)

    def progress(self, fraction: float) -> None:
        self.fraction = fraction
        self._learning_rate = linear(self.config.learning_rate, self.config.learning_rate_end, fraction)

    def update(self, batch: Batch) -> Result:
        """One gradient step. Raises :class:`UsageError` for sequences that end before the burn-in does."""
        from headrace.algorithms import memory

        if self.config.burn_in >= (steps := len(batch.arrays["reward"])):
            raise UsageError(
                f"algorithm.burn_in = {self.config.burn_in} leaves nothing of actors.fragment_steps = {steps}"
            )
        obs = self.device.tensor(batch["obs"])
        *rest, last = (self.device.tensor(batch.arrays[name]) for name in _SEQUENCE)
        context = memory.context(batch.arrays, last.device)
        self.adam.advance(self._learning_rate)
        figures = self._step(self.obs_norm(obs), *context, *rest, last)
        self.obs_norm.update(named.each(lambda one: one[:-1].flatten(0, 1), obs))
        return Result(dict(zip(_FIGURES, figures.tolist(), strict=True)) | {"learning_rate": self._learning_rate})

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        tensors = self.memory.acting() | self.q.acting("q") | self.obs_norm.acting()
        return tensors, {"epsilon": self.config.epsilon(self.fraction)}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.progress(self.fraction)

    # --- inside an update ------------------------------------------------------------------------------------------

    def _gradient_step(self, *minibatch: Any) -> torch.Tensor:
        """The figures [4]."""
        import torch

        loss, error, q = self._loss(*minibatch)
        norm = self.adam.minimise(loss, self.config.max_grad_norm)
        self._target.value.lerp_(self._online.value, self.config.tau)
        return torch.stack([loss.detach(), error, q, norm])

    def _td_loss(
        self, x: Tensors, state: torch.Tensor, begins: torch.Tensor, action: torch.Tensor, reward: torch.Tensor,
        terminated: torch.Tensor, truncated: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """The loss, mean |TD error| and mean Q(h, a). x [T + 1, M, ...], state [1, M, S], begins [T + 1, M], the others
        [T, M]."""
        import torch

        q = self._values(self.memory, self.q, x, state, begins)
        with torch.no_grad():
            valuer = self._values(self.target_memory, self.target, x, state, begins)
            discount = self.config.gamma * (~terminated).float()
            rows = (row.flatten(0, 1) for row in (reward, discount, q[1:], valuer[1:]))
            target = td_target(*rows).view_as(reward)
        chosen = q[:-1].gather(-1, action[..., None])[..., 0]
        counts = (~truncated).float()
        counts[: self.config.burn_in] = 0
        counts /= counts.sum().clamp(min=1)
        loss = (counts * torch.nn.functional.huber_loss(chosen, target, reduction="none")).sum()
        q_mean, error = (counts * chosen.detach()).sum(), (counts * (chosen.detach() - target).abs()).sum()
        return loss, error, q_mean

    def _values(self, memory: Memory, net: Net, x: Tensors, *context: torch.Tensor) -> torch.Tensor:
        """Q of all actions, [T + 1, M, A]; of those that are not allowed, none that an argmax would choose."""
        from headrace.algorithms.distributions import masked

        with self.device.autocast():
            q: torch.Tensor = net(memory.unroll(x, *context, burn_in=self.config.burn_in))
        return masked(q.float(), x)
