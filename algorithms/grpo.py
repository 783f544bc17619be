"""Group Relative Policy Optimization (Shao et al. 2024, section 4.1) on environments.

A group is G episodes from the same reset seed; an episode's advantage is its return compared with its group's, the same
for every step of it, so there is no critic. Every step weighs the same (the token-level mean of Yu et al. 2025, section
3.3), not every episode: dividing by each episode's length would reward long failures.

Legend: N steps of an update, M minibatch. Importing this file costs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic.dataclasses import dataclass

from headrace.algorithms.acting import obs_fields, stochastic_policy
from headrace.algorithms.base import Batch, Count, Groups, NetworkOptions, NotNegative, Policy, Positive, Result, Share
from headrace.algorithms.device import CPU, Device
from headrace.algorithms.minibatches import Samples, linear, shuffled
from headrace.algorithms.ppo import clipped_surrogate
from headrace.algorithms.saving import Stateful
from headrace.common.seeding import stream
from headrace.common.types import Array, Field, Layout, Schema, Spaces

if TYPE_CHECKING:
    import torch

    from headrace.algorithms.base import Tensors


@dataclass(frozen=True)
class Config(NetworkOptions):
    """Hyper-parameters of GRPO."""

    groups: Count = 4
    """Groups per update."""
    group_size: Count = 8
    """Episodes per group, all from one reset seed."""
    max_steps: Count = 1000
    """Episodes are cut here."""
    epochs: Count = 4
    """Passes over the steps of an update."""
    minibatch: Count = 256
    """Steps per gradient step; what does not fill a minibatch sits the epoch out."""
    learning_rate: Share = 1e-3
    """Adam's step size at the start."""
    learning_rate_end: Share = 0.0
    """Adam's step size at the end of the run, reached linearly."""
    clip: Positive = 0.2
    """The probability ratio is worth nothing beyond 1 +- clip."""
    entropy_coef: NotNegative = 0.0
    """Weight of an entropy bonus (the paper has none)."""
    kl_coef: NotNegative = 0.0
    """Weight of the KL divergence to the reference policy (0: no reference is kept)."""
    reference_every: int = 0
    """Versions between renewals of the reference by the present policy (0: the initial policy for good)."""
    max_grad_norm: Positive = 0.5
    """Gradients are scaled down to this norm."""

    @property
    def experience(self) -> Groups:
        return Groups(self.groups, self.group_size, self.max_steps)


def schema(config: Config, spaces: Spaces) -> Schema:
    """A fragment is a group [T, G]; ``valid`` is False where a column's episode has ended."""
    return Schema(
        {
            **obs_fields("obs", spaces, Layout.STEP),
            "action": spaces.action,
            "reward": Field("float32"),
            "terminated": Field("bool"),
            "truncated": Field("bool"),
            "valid": Field("bool"),
            "behaviour_logp": Field("float32"),
        }
    )


def policy(config: Config, spaces: Spaces) -> Policy:
    """The acting half."""
    return stochastic_policy(config, spaces)


# --- the mathematics -----------------------------------------------------------------------------------------------


def group_advantage(episode_return: Array, episode_group: Array) -> tuple[Array, int]:
    """(R - mean of the group) / std of the group, per episode; and how many groups had no variance.

    A group whose episodes all returned the same says nothing about what was better: its advantage is 0.
    """
    groups = int(episode_group.max()) + 1
    count = np.bincount(episode_group, minlength=groups)
    mean = np.bincount(episode_group, episode_return, groups) / count
    centred = episode_return - mean[episode_group]
    std = np.sqrt(np.bincount(episode_group, centred**2, groups) / count)
    flat = std < 1e-8
    return np.where(flat[episode_group], 0.0, centred / np.where(flat, 1.0, std)[episode_group]), int(flat.sum())


def reference_kl(logp: torch.Tensor, reference_logp: torch.Tensor) -> torch.Tensor:
    """The estimator k3 = exp(d) - d - 1 with d = reference - logp (eq. 4), mean over M."""
    d = reference_logp - logp
    return (d.exp() - d - 1.0).mean()


# --- the learning half ---------------------------------------------------------------------------------------------


class GRPO(Stateful):
    """Policy, reference policy, optimiser, normaliser and shuffling RNG; ``update`` is one version."""

    def __init__(self, config: Config, spaces: Spaces, seed: int, device: Device = CPU) -> None:
        from headrace.algorithms import normalise, optimise, policy_nets

        self.config, self.experience, self.schema = config, config.experience, schema(config, spaces)
        self.device = device
        self.pi, self.reference = (
            policy_nets.make(config, spaces, stream(seed, "init", "pi")).to(device.name) for _ in range(2)
        )
        self.adam = optimise.Adam(optimise.Flat(self.pi))
        self.obs_norm = normalise.make(spaces, config.normalise_obs).to(device.name)
        self.rng = stream(seed, "minibatch")
        self.versions = 0
        self._learning_rate = config.learning_rate
        self._loss, self._step = device.compiled(self._total_loss), device.recorded(self._gradient_step)

    def progress(self, fraction: float) -> None:
        self._learning_rate = linear(self.config.learning_rate, self.config.learning_rate_end, fraction)

    def update(self, batch: Batch) -> Result:
        arrays, config = batch.arrays, self.config
        advantage, flat_groups = group_advantage(arrays["episode_return"], arrays["episode_group"])
        per_step = advantage[arrays["episode"]].astype(np.float32)
        chosen = np.flatnonzero(per_step)
        obs = self.device.tensor(batch["obs"])
        metrics = self._epochs(obs, arrays, per_step, chosen) if len(chosen) else {}
        self.obs_norm.update(obs)
        self.versions += 1
        if config.reference_every and self.versions % config.reference_every == 0:
            self.reference.load_state_dict(self.pi.state_dict())
        return Result(metrics | {"flat_groups": float(flat_groups), "learning_rate": self._learning_rate})

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        return self.pi.acting() | self.obs_norm.acting(), {}

    # --- inside an update ------------------------------------------------------------------------------------------

    def _epochs(self, obs: Tensors, arrays: Mapping[str, Array], advantage: Array, chosen: Array) -> dict[str, float]:
        """Gradient steps over shuffled minibatches of the steps that say something."""
        x, action = self.obs_norm(obs), self.device.tensor(arrays["action"])
        old_logp, advantages = self.device.tensor(arrays["behaviour_logp"]), self.device.tensor(advantage)
        steps = (x, action, old_logp, advantages, self._reference_logp(x, action))
        for _ in range(self.config.epochs):
            for minibatch, last in shuffled(self.rng, Samples(steps, chosen, self.config.minibatch)):
                self.adam.advance(self._learning_rate)
                figures = self._step(*minibatch, report=last)
        return {name: float(value) for name, value in figures.items()}

    def _reference_logp(self, x: Tensors, action: torch.Tensor) -> torch.Tensor:
        import torch

        if not self.config.kl_coef:
            return torch.zeros(len(action), device=action.device)
        with torch.no_grad():
            logp: torch.Tensor = self.reference(x).log_prob(action)
        return logp

    def _gradient_step(self, *minibatch: Tensors, report: bool) -> dict[str, torch.Tensor]:
        """One gradient step; figures only where ``report``."""
        loss, figures = self._loss(*minibatch, report=report)
        norm = self.adam.minimise(loss, self.config.max_grad_norm)
        return figures | {"grad_norm": norm} if report else {}

    def _total_loss(
        self, x: Tensors, action: torch.Tensor, old_logp: torch.Tensor, advantage: torch.Tensor,
        reference_logp: torch.Tensor, report: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
        """Eq. 3, negated; all [M], but for x [M, ...] and action [M, ...]. With the figures where ``report``."""
        config = self.config
        with self.device.autocast():
            pi = self.pi(x)
        logp, entropy = pi.log_prob(action), pi.entropy().mean()
        log_ratio = logp - old_logp
        loss = -clipped_surrogate(log_ratio, advantage, config.clip) - config.entropy_coef * entropy
        figures = {"entropy": entropy, "clip_fraction": ((log_ratio.exp() - 1).abs() > config.clip).float().mean()}
        if config.kl_coef:
            figures["reference_kl"] = reference_kl(logp, reference_logp)
            loss = loss + config.kl_coef * figures["reference_kl"]
        return loss, {name: figure.detach() for name, figure in figures.items()} if report else {}
