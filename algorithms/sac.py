"""Soft Actor-Critic (Haarnoja et al. 2018b, "Soft Actor-Critic Algorithms and Applications"), continuous actions.

    y       = R + gamma (min_i Q_target,i(s', a') - alpha log pi(a' | s'))      a' ~ pi(s'); eq. 3 within eq. 5
    J_Q     = E[ sum_i (Q_i(s, a) - y)^2 / 2 ]                                  eq. 5, of twin critics
    J_pi    = E[ alpha log pi(a | s) - min_i Q_i(s, a) ]                        a = f(noise; s); eq. 9
    J_alpha = E[ -alpha (log pi(a | s) + target entropy) ]                      eq. 18
    target <- target + tau (critics - target)                                  algorithm 1

J_pi is differentiated through the action: from Q into the policy, whose actions are a function of noise. Discount and
minibatch come from replay (learner/replay.py). Before ``min_size`` nothing is learnt and the actors act by the initial
policy: the tanh of a standard normal, whose divergence from uniform actions is 0.02 nats, so it needs no other rule.

Legend: F features, D action dimensions, M minibatch.
Importing this file costs no torch: an actor reads ``Config``, ``schema`` and ``policy`` from it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from pydantic.dataclasses import dataclass

from headrace.algorithms.acting import SquashedGaussianPolicy, acting_net, env_schema
from headrace.algorithms.base import Batch, Count, NetworkOptions, NotNegative, Positive, Replay, Result, Share
from headrace.algorithms.device import CPU, Device
from headrace.algorithms.minibatches import linear
from headrace.algorithms.saving import Stateful
from headrace.common.errors import UsageError
from headrace.common.seeding import stream
from headrace.common.types import Array, Schema, Spaces

if TYPE_CHECKING:
    import torch

    from headrace.algorithms.base import Tensors

#: What a gradient step takes, beside noise, and the figures it gives.
_TRANSITION = ("obs", "next_obs", "action", "reward", "discount")
_FIGURES = ("critic_loss", "policy_loss", "temperature_loss", "q", "entropy", "temperature", "grad_norm")


@dataclass(frozen=True)
class Config(NetworkOptions):
    """Hyper-parameters of SAC. The defaults are the paper's (its table 1), but for a step size that falls."""

    fragments: Count = 1
    """Fragments between two rounds of gradient steps; weights are published after each round."""
    minibatch: Count = 256
    """Transitions per gradient step."""
    samples_per_insert: NotNegative = 256.0
    """How many times a transition is drawn on average: minibatch / samples_per_insert new ones per gradient step."""
    capacity: Count = 1_000_000
    """Transitions the replay buffer holds."""
    min_size: Annotated[int, Ge(0)] = 1000
    """Transitions to collect, by the initial policy, before the first gradient step."""
    learning_rate: Share = 3e-4
    """Adam's step size at the start: of the policy, the critics and the temperature."""
    learning_rate_end: Share = 0.0
    """Adam's step size at the end of the run, reached linearly."""
    gamma: Share = 0.99
    """Discount per environment step."""
    tau: Share = 0.005
    """Share of the critics that their targets take over at each gradient step."""
    temperature: Positive = 1.0
    """Weight of the entropy at the start; learnt from then on."""
    target_entropy: Annotated[float, Ge(-10), Le(0.69)] = -1.0
    """Entropy, in nats per action dimension, that the temperature keeps the policy at (0.69: uniform actions)."""
    hidden: tuple[Count, ...] = (256, 256)
    """Widths of the linear layers, of policy and critics alike."""
    activation: Literal["tanh", "relu"] = "relu"
    """Of an MLP; of the critics in any case."""

    @property
    def experience(self) -> Replay:
        return Replay(
            capacity=self.capacity,
            batch=self.minibatch,
            samples_per_insert=self.samples_per_insert,
            fragments=self.fragments,
            min_size=self.min_size,
            gamma=self.gamma,
        )


def schema(config: Config, spaces: Spaces) -> Schema:
    """A fragment holds what the environment showed and what was done; nothing about how it was chosen."""
    return env_schema(spaces, {})


def policy(config: Config, spaces: Spaces) -> SquashedGaussianPolicy:
    """The acting half. Raises :class:`UsageError` for spaces SAC cannot serve."""
    check(spaces)
    return SquashedGaussianPolicy(acting_net("pi", config, spaces, 2 * spaces.action_dim))


def check(spaces: Spaces) -> None:
    """Raises :class:`UsageError` for spaces SAC cannot serve."""
    if spaces.action.choices:
        kind = "Discrete" if spaces.discrete else "MultiDiscrete"
        raise UsageError(f"task.env: SAC needs a Box action space and this one is {kind}; PPO takes both")
    if not spaces.is_vector:
        shown = ", ".join(f"{field.dtype}{list(field.shape)}" for field in spaces.seen.values())
        raise UsageError(f"task.env: SAC's critics take vectors, and observations are {shown}; PPO takes images")


# --- the mathematics -----------------------------------------------------------------------------------------------


def soft_target(
    reward: torch.Tensor, discount: torch.Tensor, q: torch.Tensor, logp: torch.Tensor, alpha: torch.Tensor
) -> torch.Tensor:
    """y [M]: the reward and the discounted soft value of the next state, from the target critics' ``q`` [2, M] and
    ``logp`` [M] of an action that the policy takes there."""
    return reward + discount * (q.amin(0) - alpha * logp)


def critic_loss(q: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """J_Q, of both critics: ``q`` [2, M], ``target`` [M]."""
    return 0.5 * (q - target).square().mean(1).sum()


def policy_loss(alpha: torch.Tensor, logp: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """J_pi: ``logp`` [M] of the policy's own actions, and the critics' ``q`` [2, M] of them."""
    return (alpha * logp - q.amin(0)).mean()


def temperature_loss(alpha: torch.Tensor, logp: torch.Tensor, target_entropy: float) -> torch.Tensor:
    """J_alpha: ``logp`` [M] as it is, not to be differentiated."""
    return (-alpha * (logp + target_entropy)).mean()


# --- the learning half ---------------------------------------------------------------------------------------------


class SAC(Stateful):
    """The policy, the critics and their targets, the temperature, an optimiser for each, the normaliser and the RNG of
    the noise; ``update`` is one gradient step of each."""

    def __init__(self, config: Config, spaces: Spaces, seed: int, device: Device = CPU) -> None:
        from headrace.algorithms import networks, normalise, optimise, policy_nets

        self.config, self.experience, self.schema = config, config.experience, schema(config, spaces)
        self.device = device
        check(spaces)
        self.pi = policy_nets.make_squashed(config, spaces, stream(seed, "init", "pi")).to(device.name)
        self.q, self.target = (
            networks.TwinQ(config, spaces, stream(seed, "init", "q")).to(device.name) for _ in range(2)
        )
        self.temperature = policy_nets.Temperature(config.temperature).to(device.name)
        self._online, self._target = optimise.Flat(self.q), optimise.Flat(self.target)
        self.adam_q, self.adam_pi = optimise.Adam(self._online), optimise.Adam(optimise.Flat(self.pi))
        self.adam_temperature = optimise.Adam(optimise.Flat(self.temperature))
        self.obs_norm = normalise.make(spaces, config.normalise_obs).to(device.name)
        self.rng = stream(seed, "noise")
        self._target_entropy = config.target_entropy * spaces.action_dim
        self._critic_loss, self._policy_loss = device.compiled(self._j_q), device.compiled(self._j_pi)
        self._step = device.recorded(self._gradient_step)
        self.progress(0.0)

    def progress(self, fraction: float) -> None:
        self._learning_rate = linear(self.config.learning_rate, self.config.learning_rate_end, fraction)

    def update(self, batch: Batch) -> Result:
        """One gradient step of critics, policy and temperature; no priorities."""
        obs, next_obs, action, *rest = (self.device.tensor(batch[name]) for name in _TRANSITION)
        noise = self.device.tensor(self.rng.standard_normal((2, *action.shape), dtype=np.float32))
        for adam in (self.adam_q, self.adam_pi, self.adam_temperature):
            adam.advance(self._learning_rate)
        figures = self._step(self.obs_norm(obs), self.obs_norm(next_obs), action, *rest, *noise)
        self.obs_norm.update(obs)
        return Result(dict(zip(_FIGURES, figures.tolist(), strict=True)) | {"learning_rate": self._learning_rate})

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        return self.pi.acting() | self.obs_norm.acting(), {}

    # --- inside an update ------------------------------------------------------------------------------------------

    def _gradient_step(
        self, x: Tensors, x_next: Tensors, action: torch.Tensor, reward: torch.Tensor,
        discount: torch.Tensor, noise: torch.Tensor, noise_next: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Algorithm 1's inner loop; the figures [7]. Nothing is clipped, as in the paper."""
        import torch

        alpha = self.temperature()
        j_q, q = self._critic_loss(x, x_next, action, reward, discount, noise_next, alpha.detach())
        norm_q = self.adam_q.minimise(j_q, math.inf)
        j_pi, logp = self._policy_loss(x, noise, alpha.detach())
        norm_pi = self.adam_pi.minimise(j_pi, math.inf)
        j_alpha = temperature_loss(alpha, logp, self._target_entropy)
        self.adam_temperature.minimise(j_alpha, math.inf)
        self._target.value.lerp_(self._online.value, self.config.tau)
        losses = j_q.detach(), j_pi.detach(), j_alpha.detach()
        return torch.stack([*losses, q, -logp.mean(), alpha.detach()[0], torch.hypot(norm_q, norm_pi)])

    def _j_q(
        self, x: Tensors, x_next: Tensors, action: torch.Tensor, reward: torch.Tensor,
        discount: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """The critics' loss, and mean Q(s, a)."""
        import torch

        with torch.no_grad(), self.device.autocast():
            next_action, logp = self.pi(x_next).rsample(noise)
            target = soft_target(reward, discount, self.target(x_next, next_action), logp, alpha)
        with self.device.autocast():
            q = self.q(x, action)
        return critic_loss(q, target), q.detach().mean()

    def _j_pi(self, x: Tensors, noise: torch.Tensor, alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The policy's loss, and log pi [M] of what it does."""
        with self.device.autocast():
            action, logp = self.pi(x).rsample(noise)
            q = self.q(x, action)
        return policy_loss(alpha, logp, q), logp.detach()
