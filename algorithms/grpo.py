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

from headrace.algorithms.acting import CategoricalPolicy, GaussianPolicy, require_vector_obs
from headrace.algorithms.base import Batch, Count, Groups, NotNegative, Policy, Positive, Result, Share, State
from headrace.algorithms.device import CPU, Device
from headrace.algorithms.ppo import clipped_surrogate
from headrace.common.seeding import generator_state, restore_generator, stream
from headrace.common.types import Array, Field, Schema, Spaces

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Config:
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
    hidden: tuple[Count, ...] = (64, 64)
    """Widths of the tanh layers."""
    normalise_obs: bool = True
    """Shift and scale observations by their running mean and deviation (they travel with the weights)."""

    @property
    def experience(self) -> Groups:
        return Groups(self.groups, self.group_size, self.max_steps)


def schema(config: Config, spaces: Spaces) -> Schema:
    """A fragment is a group [T, G]; ``valid`` is False where a column's episode has ended."""
    action = Field("int64") if spaces.discrete else Field("float32", (spaces.action_dim,))
    return Schema(
        {
            "obs": Field(spaces.obs_dtype, spaces.obs_shape),
            "action": action,
            "reward": Field("float32"),
            "terminated": Field("bool"),
            "truncated": Field("bool"),
            "valid": Field("bool"),
            "behaviour_logp": Field("float32"),
        }
    )


def policy(config: Config, spaces: Spaces) -> Policy:
    """The acting half. Raises :class:`UsageError` for observations an MLP cannot take."""
    require_vector_obs(spaces, "GRPO")
    return CategoricalPolicy() if spaces.discrete else GaussianPolicy()


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


class GRPO:
    """Holds the policy network, optimiser, normaliser, reference and shuffling RNG; ``update`` is one version."""

    def __init__(self, config: Config, spaces: Spaces, seed: int, device: Device = CPU) -> None:
        from headrace.algorithms import flat, normalise, policies

        self.config, self.experience, self.schema = config, config.experience, schema(config, spaces)
        features = require_vector_obs(spaces, "GRPO")
        self.device = device
        self.pi, self.reference_pi = (
            policies.make(spaces, features, config.hidden, stream(seed, "init", "pi")).to(device.name) for _ in range(2)
        )
        self.flat, self.reference = flat.Flat({"pi": self.pi}), flat.Flat({"pi": self.reference_pi})
        self.adam = flat.Adam(self.flat)
        self.obs_norm = normalise.ObsNorm(features, config.normalise_obs, device.name)
        self.rng = stream(seed, "minibatch")
        self.versions = 0
        self._learning_rate = config.learning_rate
        self._loss, self._step = device.compiled(self._total_loss), device.recorded(self._gradient_step)

    def progress(self, fraction: float) -> None:
        start, end = self.config.learning_rate, self.config.learning_rate_end
        self._learning_rate = start + (end - start) * fraction

    def update(self, batch: Batch) -> Result:
        arrays, config = batch.arrays, self.config
        advantage, flat_groups = group_advantage(arrays["episode_return"], arrays["episode_group"])
        per_step = advantage[arrays["episode"]].astype(np.float32)
        chosen = np.flatnonzero(per_step)
        metrics: dict[str, float] = {}
        if len(chosen):
            metrics = self._epochs(arrays, per_step, chosen)
        self.obs_norm.update(arrays["obs"].reshape(len(per_step), -1))
        self.versions += 1
        if config.reference_every and self.versions % config.reference_every == 0:
            self.reference.value.copy_(self.flat.value)
        return Result(metrics | {"flat_groups": float(flat_groups), "learning_rate": self._learning_rate})

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        return self.pi.acting() | self.obs_norm.acting(), {}

    def state(self) -> State:
        tensors = self.flat.tensors() | self.adam.tensors() | self.obs_norm.tensors("obs_norm")
        tensors["reference"] = self.reference.value.cpu().numpy().copy()
        values = {"adam_steps": self.adam.steps, "versions": self.versions, "rng": generator_state(self.rng)}
        return State(tensors, values)

    def restore(self, state: State) -> None:
        """Raises :class:`UsageError` when the state is of another architecture."""
        import torch

        self.flat.restore(state.tensors)
        self.adam.restore(state.tensors, state.values["adam_steps"])
        self.obs_norm.restore("obs_norm", state.tensors)
        self.reference.value.copy_(torch.from_numpy(np.array(state.tensors["reference"])))
        self.versions, self.rng = state.values["versions"], restore_generator(state.values["rng"])

    # --- inside an update ------------------------------------------------------------------------------------------

    def _epochs(self, arrays: Mapping[str, Array], advantage: Array, chosen: Array) -> dict[str, float]:
        """Gradient steps over shuffled minibatches of the steps that say something."""
        import torch

        config, size, device = self.config, min(self.config.minibatch, len(chosen)), self.device.name
        inputs, actions = self.obs_norm.inputs(arrays["obs"]), torch.from_numpy(arrays["action"]).to(device)
        rows = np.stack([arrays["behaviour_logp"], advantage, self._reference_logp(inputs, actions)])
        data = torch.from_numpy(rows).to(device)
        for _ in range(config.epochs):
            order = torch.from_numpy(self.rng.permutation(chosen)).to(device)
            x, d, a = inputs.index_select(0, order), data.index_select(1, order), actions.index_select(0, order)
            for start in range(0, len(chosen) - size + 1, size):
                cut = slice(start, start + size)
                self.adam.advance(self._learning_rate)
                figures = self._step(x[cut], a[cut], d[:, cut], report=start + 2 * size > len(chosen))
        return {name: float(value) for name, value in figures.items()}

    def _reference_logp(self, inputs: torch.Tensor, actions: torch.Tensor) -> Array:
        import torch

        if not self.config.kl_coef:
            return np.zeros(len(inputs), np.float32)
        with torch.no_grad():
            logp: Array = self.reference_pi(inputs).log_prob(actions).cpu().numpy()
        return logp

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
        reference_logp: torch.Tensor, report: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
        """Eq. 3, negated; [M] but for x [M, F] and action [M, ...]. With the figures where ``report``."""
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
