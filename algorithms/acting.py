"""The acting half of policies, from the same tensors the learner's networks publish: what is recorded, which network
acts, and how its output becomes an action.

Thousands of actors are affordable because nothing here needs torch. A test holds it equal to the learner's half.

Tensors by name: a network's (acting_mlp.py, acting_onnx.py); ``obs_mean`` and ``obs_scale`` [features] where
observations are normalised (``obs_mean.speed``, ... of several); ``log_std`` [action_dim] of a Gaussian.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from headrace.algorithms.acting_inputs import NEVER, laid_out, masked
from headrace.algorithms.acting_mlp import JoinedMLP, NumpyMLP
from headrace.algorithms.base import NetworkOptions, Policy, PolicyOutput
from headrace.common import named
from headrace.common.errors import UsageError
from headrace.common.types import Array, Field, Layout, Obs, Schema, Spaces, Weights

#: Networks for images by name (images.py).
IMAGE_NETWORKS = ("nature_cnn", "impala_cnn")
#: Logarithms of a squashed Gaussian's deviations are held within these (Haarnoja et al. 2018, in their code).
LOG_STD_RANGE = (-20.0, 2.0)
_LEAST = np.finfo(np.float32).tiny
_LOG_2PI = float(np.log(2 * np.pi))


def env_schema(spaces: Spaces, extras: Mapping[str, Field]) -> Schema:
    """The arrays of a fragment of an environment, with what the policy records beside its actions."""
    fields = {
        **obs_fields("obs", spaces, Layout.CHAIN),
        "action": spaces.action,
        "reward": Field("float32"),
        "terminated": Field("bool"),
        "truncated": Field("bool"),
        **obs_fields("final_obs", spaces, Layout.FINAL),
        **extras,
    }
    if spaces.marks_invalid:
        fields["valid"] = Field("bool")
    return Schema(fields)


def obs_fields(kind: str, spaces: Spaces, layout: Layout) -> dict[str, Field]:
    """The arrays in which observations travel: ``kind``, or ``kind.name`` for each of several."""
    return named.spread(kind, {name: replace(field, layout=layout) for name, field in spaces.obs.items()})


class ActingNet(Protocol):
    """A network as actors have it."""

    def load(self, tensors: Mapping[str, Array]) -> None:
        """Take over a version's tensors. Raises :class:`UsageError` when names or shapes do not fit."""

    def __call__(self, obs: Any) -> Array:
        """obs [B, ...], by name where there are several -> [B, outputs]."""


def check_network(options: NetworkOptions, spaces: Spaces) -> None:
    """Raises :class:`UsageError` for a network that is not there, or that takes no such observations."""
    setting = f"algorithm.network {options.network!r}"
    if options.network not in ("mlp", *IMAGE_NETWORKS) and ":" not in options.network:
        raise UsageError(f"{setting}: mlp, {', '.join(IMAGE_NETWORKS)} or package.module:Class")
    images = [name for name, field in spaces.seen.items() if not field.is_vector]
    shown = ", ".join(f"{name} {field.dtype}{list(field.shape)}".strip() for name, field in spaces.seen.items())
    if options.network == "mlp" and images:
        raise UsageError(
            f"{setting} takes vectors, and observations are {shown}; {' and '.join(IMAGE_NETWORKS)} take images"
        )
    if options.network in IMAGE_NETWORKS and not images:
        raise UsageError(f"{setting} takes images, and observations are {shown}; mlp takes vectors")


def acting_net(name: str, options: NetworkOptions, spaces: Spaces, outputs: int) -> ActingNet:
    """The acting half of the network ``name`` that ``options`` asks for. Raises what :func:`check_network` raises."""
    check_network(options, spaces)
    if options.network == "mlp":
        mlp = NumpyMLP(name, [spaces.features, *options.hidden, outputs], options.activation)
        is_plain = spaces.seen.keys() == {""} and not spaces.seen[""].choices
        return mlp if is_plain else JoinedMLP(mlp, spaces.seen)
    from headrace.algorithms.acting_onnx import OnnxNet

    return OnnxNet(name, spaces, outputs)


def stochastic_policy(options: NetworkOptions, spaces: Spaces) -> Policy:
    """What PPO and its kin act with: the policy that ``spaces`` asks for, over the network ``pi``."""
    net = acting_net("pi", options, spaces, spaces.outputs)
    if spaces.discrete:
        return CategoricalPolicy(net)
    return MultiCategoricalPolicy(net, spaces.action.choices) if spaces.action.choices else GaussianPolicy(net)


def gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Standard Gumbel variates, float32: minus the logarithms of exponential ones. Finite: an exponential variate may
    be exactly 0 in float32, and an infinite score would choose a forbidden action."""
    return -np.log(np.maximum(rng.standard_exponential(shape, dtype=np.float32), _LEAST))


class CategoricalPolicy:
    """Softmax over logits [B, A]. Samples by the Gumbel-max trick (one vectorised argmax, no loop over rows)."""

    def __init__(self, net: ActingNet) -> None:
        self.net = net

    def load(self, weights: Weights) -> None:
        self.net.load(weights.tensors)

    def act(self, obs: Obs, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        logits = masked(self.net(named.seen(obs)), obs)
        if not explore:
            return PolicyOutput(logits.argmax(axis=1), {})
        action = (logits + gumbel(rng, logits.shape)).argmax(axis=1)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(action)), action]
        return PolicyOutput(action, {"behaviour_logp": chosen - np.log(np.exp(logits).sum(axis=1))})


class MultiCategoricalPolicy:
    """A softmax for each component of an action, over its part of the logits [B, sum of choices]. (Of two choices it is
    a Bernoulli.)"""

    def __init__(self, net: ActingNet, choices: Sequence[int]) -> None:
        self.net, self.choices = net, choices
        self._place, self._there = laid_out(choices)

    def load(self, weights: Weights) -> None:
        self.net.load(weights.tensors)

    def act(self, obs: Obs, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        logits = np.where(self._there, masked(self.net(named.seen(obs)), obs)[:, self._place], NEVER)
        if not explore:
            return PolicyOutput(logits.argmax(axis=2), {})
        action = (logits + gumbel(rng, logits.shape)).argmax(axis=2)
        logits -= logits.max(axis=2, keepdims=True)
        chosen = np.take_along_axis(logits, action[..., None], axis=2)[..., 0]
        return PolicyOutput(action, {"behaviour_logp": (chosen - np.log(np.exp(logits).sum(axis=2))).sum(axis=1)})


class GaussianPolicy:
    """Independent normal per action dimension: mean from the network [B, D], log_std a tensor [D] of its own."""

    def __init__(self, net: ActingNet) -> None:
        self.net = net
        self.log_std = np.zeros(1, np.float32)

    def load(self, weights: Weights) -> None:
        self.net.load(weights.tensors)
        self.log_std = weights.tensors["log_std"]

    def act(self, obs: Obs, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        mean = self.net(named.seen(obs))
        if not explore:
            return PolicyOutput(mean, {})
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        action = mean + np.exp(self.log_std) * noise
        logp = -0.5 * (noise * noise).sum(axis=1) - self.log_std.sum() - 0.5 * _LOG_2PI * mean.shape[1]
        return PolicyOutput(action, {"behaviour_logp": logp.astype(np.float32)})


class SquashedGaussianPolicy:
    """The tanh of independent normals, in (-1, 1): mean and log_std [B, D] side by side from one network. Greedy is the
    tanh of the mean."""

    def __init__(self, net: ActingNet) -> None:
        self.net = net

    def load(self, weights: Weights) -> None:
        self.net.load(weights.tensors)

    def act(self, obs: Obs, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        mean, log_std = np.split(self.net(named.seen(obs)), 2, axis=1)
        if not explore:
            return PolicyOutput(np.tanh(mean), {})
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        return PolicyOutput(np.tanh(mean + np.exp(log_std.clip(*LOG_STD_RANGE)) * noise), {})


class EpsilonGreedyPolicy:
    """The action of the highest Q [B, A]; while exploring, with probability epsilon any action instead. A dueling head
    gives the value and the advantages, [B, 1 + A]: Q = V + D - mean D (Wang et al. 2016, eq. 9)."""

    def __init__(self, net: ActingNet, actions: int, dueling: bool, epsilon: float) -> None:
        self.net, self.dueling, self._actions = net, dueling, actions
        self.epsilon = epsilon

    def load(self, weights: Weights) -> None:
        self.net.load(weights.tensors)
        self.epsilon = weights.scalars["epsilon"]

    def q_values(self, obs: Obs) -> Array:
        """Q of all actions [B, A], allowed or not, for observations [B, ...]."""
        out = self.net(named.seen(obs))
        if not self.dueling:
            return out
        advantage = out[:, 1:]
        q: Array = out[:, :1] + advantage - advantage.mean(axis=1, keepdims=True)
        return q

    def act(self, obs: Obs, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        action = masked(self.q_values(obs), obs).argmax(axis=1)
        if explore:
            mask = named.mask(obs)
            if mask is None:
                anything = rng.integers(self._actions, size=len(action))
            else:
                anything = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
            action = np.where(rng.random(len(action)) < self.epsilon, anything, action)
        return PolicyOutput(action, {})
