"""The acting half of small policies, in numpy, from the same tensors the learner's network publishes.

Thousands of actors are affordable because nothing here needs torch: a forward pass of a 64x64 network over 16
observations takes some 15 microseconds. A test holds it equal to the learner's network to 1e-6.

Tensors by name: ``{net}.{i}.weight`` [in, out] and ``{net}.{i}.bias`` [out] for layer i; ``obs_mean`` and ``obs_scale``
[features] where observations are normalised; ``log_std`` [action_dim] for a Gaussian policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.algorithms.base import PolicyOutput
from headrace.common.errors import UsageError
from headrace.common.types import Array, Field, Layout, Schema, Spaces, Weights

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


def require_vector_obs(spaces: Spaces, algorithm: str) -> int:
    """The number of features of a flat observation; :class:`UsageError` for images, which need another network."""
    if len(spaces.obs_shape) > 1 or not spaces.obs_dtype.startswith("float"):
        raise UsageError(
            f"task.env: observations are {spaces.obs_dtype}{list(spaces.obs_shape)}; {algorithm} here has an MLP and "
            "needs a vector of floats (a gymnasium Box of one dimension)"
        )
    return int(np.prod(spaces.obs_shape))


class NumpyMLP:
    """A multilayer perceptron read out of a weights' tensors. Call it with obs [B, features]; returns [B, out]. Raises
    ValueError for anything else: numpy would broadcast one observation against the normaliser, and return nonsense."""

    def __init__(self, net: str, activation: str) -> None:
        self.net = net
        self.activation = _ACTIVATIONS[activation]
        self.layers: list[tuple[Array, Array]] = []
        self.obs_mean: Array | None = None
        self.obs_scale: Array | None = None

    def load(self, tensors: Mapping[str, Array]) -> None:
        layers: list[tuple[Array, Array]] = []
        while (name := f"{self.net}.{len(layers)}.weight") in tensors:
            layers.append((tensors[name], tensors[f"{self.net}.{len(layers)}.bias"]))
        widths = [(w.shape, b.shape) for w, b in layers]
        chained = all(layers[i][0].shape[1] == layers[i + 1][0].shape[0] for i in range(len(layers) - 1))
        if not layers or not chained or any(w[1:] != b for w, b in widths):
            raise UsageError(f"weights hold no network {self.net!r} that fits together: layers {widths}")
        self.layers = layers
        self.obs_mean, self.obs_scale = tensors.get("obs_mean"), tensors.get("obs_scale")

    def __call__(self, obs: Array) -> Array:
        x: Array = obs.reshape(len(obs), -1) if obs.ndim else obs
        features = len(self.layers[0][0])
        if x.ndim != 2 or x.shape[1] != features:
            raise ValueError(f"observations of shape {obs.shape}; expected a batch, [B, {features}]")
        if self.obs_mean is not None:
            x = x - self.obs_mean
            x *= self.obs_scale
            np.minimum(x, OBS_CLIP, out=x)  # the two together: a third of what np.clip costs on small arrays
            np.maximum(x, -OBS_CLIP, out=x)
        for weight, bias in self.layers[:-1]:
            x = x @ weight
            x += bias
            self.activation(x, out=x)
        weight, bias = self.layers[-1]
        x = x @ weight
        x += bias
        return x


class CategoricalPolicy:
    """Softmax over logits [B, A]. Samples by the Gumbel-max trick (one vectorised argmax, no loop over rows)."""

    def __init__(self, net: str = "pi", activation: str = "tanh") -> None:
        self.mlp = NumpyMLP(net, activation)

    def load(self, weights: Weights) -> None:
        self.mlp.load(weights.tensors)

    def act(self, obs: Array, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        logits = self.mlp(obs)
        if not explore:
            return PolicyOutput(logits.argmax(axis=1), {})
        # Minus the log of an exponential variate is a Gumbel variate.
        action = (logits - np.log(rng.standard_exponential(logits.shape, dtype=np.float32))).argmax(axis=1)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(action)), action]
        return PolicyOutput(action, {"behaviour_logp": chosen - np.log(np.exp(logits).sum(axis=1))})


class GaussianPolicy:
    """Independent normal per action dimension: mean from the network [B, D], log_std a tensor [D] of its own."""

    def __init__(self, net: str = "pi", activation: str = "tanh") -> None:
        self.mlp = NumpyMLP(net, activation)
        self.log_std = np.zeros(1, np.float32)

    def load(self, weights: Weights) -> None:
        self.mlp.load(weights.tensors)
        self.log_std = weights.tensors["log_std"]

    def act(self, obs: Array, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        mean = self.mlp(obs)
        if not explore:
            return PolicyOutput(mean, {})
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        action = mean + np.exp(self.log_std) * noise
        logp = -0.5 * (noise * noise).sum(axis=1) - self.log_std.sum() - 0.5 * _LOG_2PI * mean.shape[1]
        return PolicyOutput(action, {"behaviour_logp": logp.astype(np.float32)})


class SquashedGaussianPolicy:
    """The tanh of independent normals, in (-1, 1): mean and log_std [B, D] side by side from one network. Greedy is the
    tanh of the mean."""

    def __init__(self, action_dim: int, activation: str, net: str = "pi") -> None:
        self._action_dim = action_dim
        self.mlp = NumpyMLP(net, activation)

    def load(self, weights: Weights) -> None:
        self.mlp.load(weights.tensors)
        if (found := len(self.mlp.layers[-1][1])) != 2 * self._action_dim:
            raise UsageError(f"weights of another policy: {found} outputs for actions of {self._action_dim} numbers")

    def act(self, obs: Array, state: Any, rng: np.random.Generator, explore: bool) -> PolicyOutput:
        mean, log_std = np.split(self.mlp(obs), 2, axis=1)
        if not explore:
            return PolicyOutput(np.tanh(mean), {})
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        return PolicyOutput(np.tanh(mean + np.exp(log_std.clip(*LOG_STD_RANGE)) * noise), {})


class EpsilonGreedyPolicy:
    """The action of the highest Q [B, A]; while exploring, with probability epsilon any action instead. A dueling head
    gives the value and the advantages, [B, 1 + A]: Q = V + D - mean D (Wang et al. 2016, eq. 9)."""

    def __init__(self, widths: Sequence[int], actions: int, dueling: bool, epsilon: float) -> None:
        self._widths, self._dueling, self._actions = list(widths), dueling, actions
        self.mlp = NumpyMLP("q", "tanh")
        self.epsilon = epsilon

    def load(self, weights: Weights) -> None:
        self.mlp.load(weights.tensors)
        found = [len(self.mlp.layers[0][0]), *(len(bias) for _, bias in self.mlp.layers)]
        if found != self._widths:
            raise UsageError(f"weights of another Q network: layers {found} where this run has {self._widths}")
        self.epsilon = weights.scalars["epsilon"]

    def q_values(self, obs: Array) -> Array:
        """Q of all actions [B, A] for observations [B, F]."""
        out = self.mlp(obs)
        if not self._dueling:
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
