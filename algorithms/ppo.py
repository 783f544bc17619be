"""Proximal Policy Optimization (Schulman et al. 2017), discrete and continuous actions.

The learner recomputes values, so actors carry no critic.

Legend: T steps, B environments, N samples of an update, F features, A actions or action dimensions, M minibatch.
Importing this file costs no torch: an actor reads ``Config``, ``schema`` and ``policy`` from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic.dataclasses import dataclass

from headrace.algorithms.acting import env_schema, stochastic_policy
from headrace.algorithms.base import (
    Batch,
    Count,
    NetworkOptions,
    NotNegative,
    OnPolicy,
    Policy,
    Positive,
    Result,
    Share,
    Tensors,
)
from headrace.algorithms.device import CPU, Device
from headrace.algorithms.minibatches import linear, shuffled
from headrace.algorithms.saving import Stateful
from headrace.common import named
from headrace.common.seeding import stream
from headrace.common.types import Array, Field, Schema, Spaces

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Config(NetworkOptions):
    """Hyper-parameters of PPO. The defaults learn CartPole."""

    fragments: Count = 2
    """Fragments per update."""
    epochs: Count = 4
    """Passes over the samples of an update."""
    minibatch: Count = 256
    """Samples per gradient step; what does not fill a minibatch sits the epoch out."""
    learning_rate: Share = 1e-3
    """Adam's step size at the start."""
    learning_rate_end: Share = 0.0
    """Adam's step size at the end of the run, reached linearly."""
    gamma: Share = 0.99
    """Discount."""
    gae_lambda: Share = 0.95
    """Lambda of the generalised advantage estimate."""
    clip: Positive = 0.2
    """The probability ratio is worth nothing beyond 1 +- clip."""
    entropy_coef: NotNegative = 0.01
    """Weight of the entropy bonus."""
    value_coef: NotNegative = 0.5
    """Weight of the squared error of the (normalised) values."""
    max_grad_norm: Positive = 0.5
    """Gradients are scaled down to this norm."""
    target_kl: Positive | None = None
    """Stop the epochs of an update once the approximate KL divergence passes 1.5 times this."""
    normalise_returns: bool = True
    """Let the critic predict returns in units of their running deviation."""

    @property
    def experience(self) -> OnPolicy:
        return OnPolicy(self.fragments)


def schema(config: Config, spaces: Spaces) -> Schema:
    """A fragment holds what the environment showed and the log-probability of what was done."""
    return env_schema(spaces, {"behaviour_logp": Field("float32")})


def policy(config: Config, spaces: Spaces) -> Policy:
    """The acting half."""
    return stochastic_policy(config, spaces)


# --- the mathematics -----------------------------------------------------------------------------------------------


def gae(reward: Array, value: Array, next_value: Array, done: Array, gamma: float, lam: float) -> Array:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), all [T, B].

    ``next_value`` is the value of what followed each step: 0 after a termination, the value of the final observation
    after a truncation. ``done`` ends the sum at every episode end.
    """
    delta = reward + gamma * next_value - value
    carry = gamma * lam * ~done
    advantage: Array = np.empty_like(delta)
    last = np.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        last = delta[t] + carry[t] * last
        advantage[t] = last
    return advantage


def clipped_surrogate(log_ratio: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """The objective L^CLIP (Schulman et al. 2017, eq. 7), mean over M. With ``log_ratio`` = log pi - log pi_old [M]."""
    import torch

    ratio = log_ratio.exp()
    return torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


# --- the learning half ---------------------------------------------------------------------------------------------


class PPO(Stateful):
    """Networks, optimiser, normalisers and the shuffling RNG; ``update`` is one version."""

    def __init__(self, config: Config, spaces: Spaces, seed: int, device: Device = CPU) -> None:
        from headrace.algorithms import networks, normalise, optimise, policy_nets

        self.config, self.experience, self.schema = config, config.experience, schema(config, spaces)
        self.device = device
        self.pi = policy_nets.make(config, spaces, stream(seed, "init", "pi")).to(device.name)
        self.vf = networks.make(config, spaces, 1, stream(seed, "init", "vf")).to(device.name)
        self.adam = optimise.Adam(optimise.Flat(self.pi, self.vf))
        self.obs_norm = normalise.make(spaces, config.normalise_obs).to(device.name)
        self.return_norm = normalise.RunningNorm(1).to(device.name)
        self.rng = stream(seed, "minibatch")
        self._learning_rate = config.learning_rate
        self._loss, self._step = device.compiled(self._total_loss), device.recorded(self._gradient_step)

    def progress(self, fraction: float) -> None:
        self._learning_rate = linear(self.config.learning_rate, self.config.learning_rate_end, fraction)

    def update(self, batch: Batch) -> Result:
        arrays = batch.arrays
        obs = self.device.tensor(batch["obs"])
        advantage, target, explained = self._estimate(obs, arrays)
        chosen = np.flatnonzero(arrays["valid"]) if "valid" in arrays else np.arange(advantage.size)
        advantage = (advantage - advantage.flat[chosen].mean()) / (advantage.flat[chosen].std() + 1e-8)
        steps = (arrays["action"], arrays["behaviour_logp"], advantage, target)
        seen = named.each(lambda one: one[:-1].flatten(0, 1), obs)
        metrics = self._epochs((self.obs_norm(seen), *(self.device.tensor(x).flatten(0, 1) for x in steps)), chosen)
        self.obs_norm.update(named.rows(seen, self.device.tensor(chosen)))
        return Result(metrics | {"explained_variance": explained, "learning_rate": self._learning_rate})

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        return self.pi.acting() | self.obs_norm.acting(), {}

    # --- inside an update ------------------------------------------------------------------------------------------

    def _estimate(self, obs: Tensors, arrays: Mapping[str, Array]) -> tuple[Array, Array, float]:
        """Advantages and value targets [T, B] (targets in the critic's units), and the explained variance."""
        values = self._values(named.each(lambda one: one.flatten(0, 1), obs)).reshape(-1, arrays["reward"].shape[1])
        next_value = np.where(arrays["terminated"], np.float32(0), values[1:])
        t, b = arrays["final_t"], arrays["final_b"]
        if len(t):
            final = self._values(self.device.tensor(named.gathered(arrays, "final_obs")))
            next_value[t, b] = np.where(arrays["terminated"][t, b], np.float32(0), final)
        done = arrays["terminated"] | arrays["truncated"]
        advantage = gae(arrays["reward"], values[:-1], next_value, done, self.config.gamma, self.config.gae_lambda)
        returns = advantage + values[:-1]
        explained = 1.0 - float(advantage.var() / (returns.var() + 1e-8))
        if self.config.normalise_returns:
            self.return_norm.update(self.device.tensor(returns.reshape(-1, 1)))
        return advantage, self.return_norm(self.device.tensor(returns)).cpu().numpy(), explained

    def _values(self, obs: Tensors) -> Array:
        """What the critic expects after ``obs`` [N, ...]: returns, float32 [N]."""
        import torch

        with torch.no_grad():
            values: Array = self.return_norm.inverse(self.vf(self.obs_norm(obs))[..., 0]).cpu().numpy()
        return values

    def _epochs(self, steps: tuple[Tensors, ...], chosen: Array) -> dict[str, float]:
        """Gradient steps on shuffled minibatches of ``steps``: what :meth:`_total_loss` takes, [N, ...] each."""
        config, metrics = self.config, dict[str, float]()
        for epoch in range(config.epochs):
            for minibatch, last in shuffled(self.rng, chosen, config.minibatch, steps):
                self.adam.advance(self._learning_rate)
                figures = self._step(*minibatch, report=last)
            metrics = {name: float(value) for name, value in figures.items()} | {"epochs": float(epoch + 1)}
            if config.target_kl is not None and metrics["kl"] > 1.5 * config.target_kl:
                break
        return metrics

    def _gradient_step(self, *minibatch: Tensors, report: bool) -> dict[str, torch.Tensor]:
        """One gradient step; figures only where ``report``."""
        loss, figures = self._loss(*minibatch, report=report)
        norm = self.adam.minimise(loss, self.config.max_grad_norm)
        return figures | {"grad_norm": norm} if report else {}

    def _total_loss(
        self, x: Tensors, action: torch.Tensor, old_logp: torch.Tensor, advantage: torch.Tensor,
        target: torch.Tensor, report: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
        """Eq. 9, negated; all [M], but for x [M, ...] and action [M, ...]. With the figures where ``report``."""
        config = self.config
        with self.device.autocast():
            pi, value = self.pi(x), self.vf(x)[:, 0]
        log_ratio, entropy = pi.log_prob(action) - old_logp, pi.entropy().mean()
        surrogate = clipped_surrogate(log_ratio, advantage, config.clip)
        value_loss = (value - target).square().mean()
        loss = config.value_coef * value_loss - surrogate - config.entropy_coef * entropy
        if not report:
            return loss, {}
        log_ratio = log_ratio.detach()
        ratio = log_ratio.exp()
        return loss, {
            "policy_loss": -surrogate.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "kl": (ratio - 1 - log_ratio).mean(),
            "clip_fraction": ((ratio - 1).abs() > config.clip).float().mean(),
        }
