"""The acting half of small policies, in numpy, from the same tensors the learner's network publishes.

Thousands of actors are affordable because nothing here needs torch: a forward pass of a 64x64 network over 16
observations takes some 15 microseconds. A test holds it equal to the learner's network to 1e-6.

Tensors by name: ``{net}.{i}.weight`` [in, out] and ``{net}.{i}.bias`` [out] for layer i of an MLP (with
``{net}.{i}.norm.weight`` and ``.bias`` [out] where it has layer norms); what other networks have is in acting_onnx.py;
``obs_mean`` and ``obs_scale`` [features] where observations are normalised; ``log_std`` [action_dim] of a Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from headrace.algorithms.base import NetworkOptions, Policy, PolicyOutput
from headrace.common.errors import UsageError
from headrace.common.types import Array, Field, Layout, Schema, Spaces, Weights

#: Networks for images by name (images.py).
IMAGE_NETWORKS = ("nature_cnn", "impala_cnn")
#: Normalised observations beyond this are cut off: a feature that never moved must not blow up when it does.
OBS_CLIP = 10.0
#: Logarithms of a squashed Gaussian's deviations are held within these (Haarnoja et al. 2018, in their code).
LOG_STD_RANGE = (-20.0, 2.0)
_LOG_2PI = float(np.log(2 * np.pi))
_ACTIVATIONS: Mapping[str, Callable[..., Array]] = {"tanh": np.tanh, "relu": lambda x, out: np.maximum(x, 0, out=out)}


def env_schema(spaces: Spaces, extras: Mapping[str, Field]) -> Schema:
    """The arrays of a fragment of an environment, with what the policy records beside its actions."""
    action = Field("int64", below=spaces.n_actions) if spaces.discrete else Field("float32", (spaces.action_dim,))
    fields = {
        "obs": Field(spaces.obs_dtype, spaces.obs_shape, Layout.CHAIN),
        "action": action,
        "reward": Field("float32"),
        "terminated": Field("bool"),
        "truncated": Field("bool"),
        "final_obs": Field(spaces.obs_dtype, spaces.obs_shape, Layout.FINAL),
        **extras,
    }
    if spaces.marks_invalid:
        fields["valid"] = Field("bool")
    return Schema(fields)


class ActingNet(Protocol):
    """A network as actors have it."""

    def load(self, tensors: Mapping[str, Array]) -> None:
        """Take over a version's tensors. Raises :class:`UsageError` when names or shapes do not fit."""

    def __call__(self, obs: Array) -> Array:
        """obs [B, ...] -> [B, outputs]."""


def check_network(options: NetworkOptions, spaces: Spaces) -> None:
    """Raises :class:`UsageError` for a network that is not there, or that takes no such observations."""
    setting = f"algorithm.network {options.network!r}"
    if options.network not in ("mlp", *IMAGE_NETWORKS) and ":" not in options.network:
        raise UsageError(f"{setting}: mlp, {', '.join(IMAGE_NETWORKS)} or package.module:Class")
    if options.network == "mlp" and not spaces.is_vector:
        raise UsageError(
            f"{setting} takes vectors, and observations are {spaces.obs_dtype}{list(spaces.obs_shape)}; "
            f"{' and '.join(IMAGE_NETWORKS)} take images"
        )


def acting_net(name: str, options: NetworkOptions, spaces: Spaces, outputs: int) -> ActingNet:
    """The acting half of the network ``name`` that ``options`` asks for. Raises what :func:`check_network` raises."""
    check_network(options, spaces)
    if options.network == "mlp":
        return NumpyMLP(name, [spaces.features, *options.hidden, outputs], options.activation)
    from headrace.algorithms.acting_onnx import OnnxNet

    return OnnxNet(name, spaces, outputs)


def stochastic_policy(options: NetworkOptions, spaces: Spaces) -> Policy:
    """What PPO and its kin act with: the policy that ``spaces`` asks for, over the network ``pi``."""
    net = acting_net("pi", options, spaces, spaces.outputs)
    return CategoricalPolicy(net) if spaces.discrete else GaussianPolicy(net)


class NumpyMLP:
    """A multilayer perceptron read out of a weights' tensors. Call it with obs [B, features]; returns [B, out]. Raises
    ValueError for anything else: numpy would broadcast one observation against the normaliser, and return nonsense."""

    def __init__(self, name: str, widths: Sequence[int], activation: str) -> None:
        self.name, self._widths = name, list(widths)
        self.activation_name, self.activation = activation, _ACTIVATIONS[activation]
        self.layers: list[tuple[Array, Array]] = []
        self.norms: list[tuple[Array, Array]] = []
        self.obs_mean: Array | None = None
        self.obs_scale: Array | None = None

    def load(self, tensors: Mapping[str, Array]) -> None:
        layers: list[tuple[Array, Array]] = []
        while (name := f"{self.name}.{len(layers)}.weight") in tensors:
            layers.append((tensors[name], tensors[f"{self.name}.{len(layers)}.bias"]))
        shapes = [(w.shape, b.shape) for w, b in layers]
        if shapes != [((into, out), (out,)) for into, out in pairwise(self._widths)]:
            raise UsageError(f"weights hold no network {self.name!r} of the widths {self._widths}: layers {shapes}")
        self.layers = layers
        named = [f"{self.name}.{i}.norm" for i in range(len(layers) - 1)]
        self.norms = [
            (tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in named if f"{name}.weight" in tensors
        ]
        self.obs_mean, self.obs_scale = tensors.get("obs_mean"), tensors.get("obs_scale")

    def __call__(self, obs: Array) -> Array:
        x: Array = obs.reshape(len(obs), -1) if obs.ndim else obs
        features = len(self.layers[0][0])
        if x.ndim != 2 or x.shape[1] != features:
            raise ValueError(f"observations of shape {obs.shape}; expected a batch, [B, {features}]")
        x = normalised(x, self.obs_mean, self.obs_scale)
        for i, (weight, bias) in enumerate(self.layers[:-1]):
            x = x @ weight
            x += bias
            if self.norms:
                x = _layer_norm(x, *self.norms[i])
            self.activation(x, out=x)
        weight, bias = self.layers[-1]
        x = x @ weight
        x += bias
        return x


def normalised(x: Array, mean: Array | None, scale: Array | None) -> Array:
    """Observations [B, F] as the learner's network saw them (normalise.py), float32; as they are where nothing is
    normalised."""
    if mean is None:
        return np.asarray(x, np.float32)
    x = x - mean
    x *= scale
    np.minimum(x, OBS_CLIP, out=x)  # the two together: a third of what np.clip costs on small arrays
    np.maximum(x, -OBS_CLIP, out=x)
    return x


def _layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    """Ba et al. 2016, eq. 4, over the last axis, as torch has it."""
    x = x - x.mean(axis=1, keepdims=True)
    out: Array = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(1e-5)) * weight + bias
    return out


class CategoricalPolicy:
    """Softmax over logits [B, A]. Samples by the Gumbel-max trick (one vectorised argmax, no loop over rows)."""

    def __init__(self, net: ActingNet) -> None:
        self.net = net

    def load(self, weights: Weights) -> None:
        self.net.load(weights.tensors)

    def act(self, obs: Array, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        logits = self.net(obs)
        if not explore:
            return PolicyOutput(logits.argmax(axis=1), {})
        # Minus the log of an exponential variate is a Gumbel variate.
        action = (logits - np.log(rng.standard_exponential(logits.shape, dtype=np.float32))).argmax(axis=1)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(action)), action]
        return PolicyOutput(action, {"behaviour_logp": chosen - np.log(np.exp(logits).sum(axis=1))})


class GaussianPolicy:
    """Independent normal per action dimension: mean from the network [B, D], log_std a tensor [D] of its own."""

    def __init__(self, net: ActingNet) -> None:
        self.net = net
        self.log_std = np.zeros(1, np.float32)

    def load(self, weights: Weights) -> None:
        self.net.load(weights.tensors)
        self.log_std = weights.tensors["log_std"]

    def act(self, obs: Array, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        mean = self.net(obs)
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

    def act(self, obs: Array, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        mean, log_std = np.split(self.net(obs), 2, axis=1)
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

    def q_values(self, obs: Array) -> Array:
        """Q of all actions [B, A] for observations [B, F]."""
        out = self.net(obs)
        if not self.dueling:
            return out
        advantage = out[:, 1:]
        q: Array = out[:, :1] + advantage - advantage.mean(axis=1, keepdims=True)
        return q

    def act(self, obs: Array, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        action = self.q_values(obs).argmax(axis=1)
        if explore:
            anything = rng.integers(self._actions, size=len(action))
            action = np.where(rng.random(len(action)) < self.epsilon, anything, action)
        return PolicyOutput(action, {})
