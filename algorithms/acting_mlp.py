"""Multilayer perceptrons in numpy: a forward pass of a 64x64 network over 16 observations takes some 15 microseconds.

Tensors by name: ``{net}.{i}.weight`` [in, out] and ``{net}.{i}.bias`` [out] for layer i, and of its layer norm
``{net}.{i}.norm.weight`` and ``{net}.{i}.norm.bias`` [out]; ``obs_mean``, ``obs_scale`` as in acting.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from headrace.algorithms.acting_inputs import normalised, norms, one_hot, prepared
from headrace.common import named
from headrace.common.errors import UsageError
from headrace.common.types import Array, Field

_ACTIVATIONS: Mapping[str, Callable[..., Array]] = {"tanh": np.tanh, "relu": lambda x, out: np.maximum(x, 0, out=out)}


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
        normed = [f"{self.name}.{i}.norm" for i in range(len(layers) - 1)]
        self.norms = [
            (tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in normed if f"{name}.weight" in tensors
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


class JoinedMLP:
    """An MLP over all that is seen as one vector, in the order of ``fields``: vectors normalised, whole numbers as
    one-hot vectors (branches.py: Encoder)."""

    def __init__(self, mlp: NumpyMLP, fields: Mapping[str, Field]) -> None:
        self.mlp, self.fields = mlp, fields
        self.norms: Mapping[str, tuple[Array | None, Array | None]] = {}

    def load(self, tensors: Mapping[str, Array]) -> None:
        self.mlp.load({name: tensor for name, tensor in tensors.items() if not name.startswith("obs_")})
        self.norms = norms(tensors, self.fields)

    def __call__(self, obs: Any) -> Array:
        parts = named.parts(obs)
        coded = [
            one_hot(parts[name], field.choices) if field.choices else prepared(parts[name], field, *self.norms[name])
            for name, field in self.fields.items()
        ]
        return self.mlp(np.concatenate(coded, axis=1))


def _layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    """Ba et al. 2016, eq. 4, over the last axis, as torch has it."""
    x = x - x.mean(axis=1, keepdims=True)
    out: Array = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(1e-5)) * weight + bias
    return out
