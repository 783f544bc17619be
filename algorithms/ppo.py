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

from headrace.algorithms.acting import CategoricalPolicy, GaussianPolicy, env_schema, require_vector_obs
from headrace.algorithms.base import Batch, Count, NotNegative, OnPolicy, Policy, Positive, Result, Share, State
from headrace.algorithms.device import CPU, Device
from headrace.common.seeding import generator_state, restore_generator, stream
from headrace.common.types import Array, Field, Schema, Spaces

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Config:
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
    hidden: tuple[Count, ...] = (64, 64)
    """Widths of the tanh layers, for policy and value network alike."""
    normalise_obs: bool = True
    """Shift and scale observations by their running mean and deviation (they travel with the weights)."""
    normalise_returns: bool = True
    """Let the critic predict returns in units of their running deviation."""

    @property
    def experience(self) -> OnPolicy:
        return OnPolicy(self.fragments)


def schema(config: Config, spaces: Spaces) -> Schema:
    """A fragment holds what the environment showed and the log-probability of what was done."""
    return env_schema(spaces, {"behaviour_logp": Field("float32")})


def policy(config: Config, spaces: Spaces) -> Policy:
    """The acting half. Raises :class:`UsageError` for observations an MLP cannot take."""
    require_vector_obs(spaces, "PPO")
    return CategoricalPolicy() if spaces.discrete else GaussianPolicy()


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


class PPO:
    """Holds networks, optimiser, normalisers and the shuffling RNG; ``update`` is one version."""

    def __init__(self, config: Config, spaces: Spaces, seed: int, device: Device = CPU) -> None:
        from headrace.algorithms import flat, networks, normalise, policies

        self.config, self.experience, self.schema = config, config.experience, schema(config, spaces)
        features = require_vector_obs(spaces, "PPO")
        self.device = device
        self.pi = policies.make(spaces, features, config.hidden, stream(seed, "init", "pi")).to(device.name)
        self.vf = networks.MLP([features, *config.hidden, 1], stream(seed, "init", "vf"), 1.0).to(device.name)
        self.flat = flat.Flat({"pi": self.pi, "vf": self.vf})
        self.adam = flat.Adam(self.flat)
        self.obs_norm = normalise.ObsNorm(features, config.normalise_obs, device.name)
        self.return_norm = normalise.RunningNorm(1)
        self.rng = stream(seed, "minibatch")
        self._learning_rate = config.learning_rate
        self._loss, self._step = device.compiled(self._total_loss), device.recorded(self._gradient_step)

    def progress(self, fraction: float) -> None:
        start, end = self.config.learning_rate, self.config.learning_rate_end
        self._learning_rate = start + (end - start) * fraction

    def update(self, batch: Batch) -> Result:
        arrays = batch.arrays
        obs = arrays["obs"].reshape(*arrays["obs"].shape[:2], -1)
        inputs = self.obs_norm.inputs(obs)
        advantage, target, explained = self._estimate(inputs, arrays)
        chosen = np.flatnonzero(arrays["valid"]) if "valid" in arrays else np.arange(advantage.size)
        advantage = (advantage - advantage.flat[chosen].mean()) / (advantage.flat[chosen].std() + 1e-8)
        rows = np.stack([arrays["behaviour_logp"].ravel(), advantage.ravel(), target.ravel()])
        action = arrays["action"].reshape(advantage.size, *arrays["action"].shape[2:])
        metrics = self._epochs(inputs[: advantage.size], rows, action, chosen)
        self.obs_norm.update(obs[:-1].reshape(advantage.size, -1)[chosen])
        return Result(metrics | {"explained_variance": explained, "learning_rate": self._learning_rate})

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        return self.pi.acting() | self.obs_norm.acting(), {}

    def state(self) -> State:
        tensors = self.flat.tensors() | self.adam.tensors()
        tensors |= self.obs_norm.tensors("obs_norm") | self.return_norm.tensors("return_norm")
        return State(tensors, {"adam_steps": self.adam.steps, "rng": generator_state(self.rng)})

    def restore(self, state: State) -> None:
        """Raises :class:`UsageError` when the state is of another architecture."""
        self.flat.restore(state.tensors)
        self.adam.restore(state.tensors, state.values["adam_steps"])
        self.obs_norm.restore("obs_norm", state.tensors)
        self.return_norm.restore("return_norm", state.tensors)
        self.rng = restore_generator(state.values["rng"])

    # --- inside an update ------------------------------------------------------------------------------------------

    def _estimate(self, inputs: torch.Tensor, arrays: Mapping[str, Array]) -> tuple[Array, Array, float]:
        """Advantages and value targets [T, B] (targets in the critic's units), and the explained variance."""
        T, B = arrays["reward"].shape
        mean, std = float(self.return_norm.mean[0]), 1.0 / float(self.return_norm.scale[0])
        values = self._values(inputs).reshape(T + 1, B) * std + mean
        next_value = np.where(arrays["terminated"], np.float32(0), values[1:])
        if len(arrays["final_obs"]):
            final = self._values(self.obs_norm.inputs(arrays["final_obs"])) * std + mean
            t, b = arrays["final_t"], arrays["final_b"]
            next_value[t, b] = np.where(arrays["terminated"][t, b], np.float32(0), final)
        done = arrays["terminated"] | arrays["truncated"]
        advantage = gae(arrays["reward"], values[:-1], next_value, done, self.config.gamma, self.config.gae_lambda)
        returns = advantage + values[:-1]
        explained = 1.0 - float(advantage.var() / (returns.var() + 1e-8))
        if self.config.normalise_returns:
            self.return_norm.update(returns.reshape(-1, 1))
        scale = float(self.return_norm.scale[0])
        return advantage, ((returns - self.return_norm.mean[0]) * scale).astype(np.float32), explained

    def _values(self, inputs: torch.Tensor) -> Array:
        """The critic's values of ``inputs`` [N, F], in its units: float32 [N]."""
        import torch

        with torch.no_grad():
            values: Array = self.vf(inputs)[:, 0].cpu().numpy()
        return values

    def _epochs(self, inputs: torch.Tensor, rows: Array, action: Array, chosen: Array) -> dict[str, float]:
        """Gradient steps on shuffled minibatches. ``inputs`` [N, F], ``rows`` (logp, advantage, target) [3, N]."""
        import torch

        config, size, device = self.config, min(self.config.minibatch, len(chosen)), self.device.name
        data, actions = torch.from_numpy(rows).to(device), torch.from_numpy(action).to(device)
        metrics: dict[str, float] = {}
        for epoch in range(config.epochs):
            order = torch.from_numpy(self.rng.permutation(chosen)).to(device)
            x, d, a = inputs.index_select(0, order), data.index_select(1, order), actions.index_select(0, order)
            for start in range(0, len(chosen) - size + 1, size):
                cut = slice(start, start + size)
                self.adam.advance(self._learning_rate)
                figures = self._step(x[cut], a[cut], d[:, cut], report=start + 2 * size > len(chosen))
            metrics = {name: float(value) for name, value in figures.items()} | {"epochs": float(epoch + 1)}
            if config.target_kl is not None and metrics["kl"] > 1.5 * config.target_kl:
                break
        return metrics

    def _gradient_step(
        self, x: torch.Tensor, action: torch.Tensor, data: torch.Tensor, report: bool
    ) -> dict[str, torch.Tensor]:
        """One gradient step; figures only where ``report``."""
        loss, figures = self._loss(x, action, *data.unbind(), report)
        self.flat.grad.zero_()
        loss.backward()
        norm = self.flat.clip_grad(self.config.max_grad_norm)
        self.adam.step()
        return figures | {"grad_norm": norm} if report else {}

    def _total_loss(
        self, x: torch.Tensor, action: torch.Tensor, old_logp: torch.Tensor, advantage: torch.Tensor,
        target: torch.Tensor, report: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
        """Eq. 9, negated; [M] but for x [M, F] and action [M, ...]. With the figures where ``report``."""
        config = self.config
        with self.device.autocast():
            pi, value = self.pi(x), self.vf(x)[:, 0]
        log_ratio, entropy = pi.log_prob(action) - old_logp, pi.entropy().mean()
        surrogate = clipped_surrogate(log_ratio, advantage, config.clip)
        value_loss = (value - target).square().mean()
        loss = config.value_coef * value_loss - surrogate - config.entropy_coef * entropy
        return loss, self._figures(surrogate, value_loss, entropy, log_ratio) if report else {}

    def _figures(
        self, surrogate: torch.Tensor, value_loss: torch.Tensor, entropy: torch.Tensor, log_ratio: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        log_ratio = log_ratio.detach()
        ratio = log_ratio.exp()
        return {
            "policy_loss": -surrogate.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "kl": (ratio - 1 - log_ratio).mean(),  # Schulman 2020, "Approximating KL divergence": k3
            "clip_fraction": ((ratio - 1).abs() > self.config.clip).float().mean(),
        }
