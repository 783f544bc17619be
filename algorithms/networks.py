"""Networks an algorithm can ask for by name: a body, any ``torch.nn.Module`` from observations to features, and a
linear head.

    net = make(options, spaces, outputs, rng)     # options: base.NetworkOptions, a part of every Config
    net(x)                                        # observations [B, ...] -> [B, outputs]
    net.acting("pi")                              # the tensors that the actors' half (acting.py) needs of it

Legend: B batch, F features.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace.algorithms.acting import IMAGE_NETWORKS, check_network
from headrace.algorithms.base import NetworkOptions
from headrace.algorithms.images import ImpalaCNN, NatureCNN
from headrace.algorithms.layers import MLP, orthogonal
from headrace.common import own_code
from headrace.common.errors import UsageError
from headrace.common.types import Array, Spaces

IMAGES = dict(zip(IMAGE_NETWORKS, (NatureCNN, ImpalaCNN), strict=True))


class Net(nn.Module):
    """``body`` and a linear head: [B, ...] -> [B, outputs]. ``shape``, ``dtype``: of what it is shown, without B."""

    def __init__(self, body: nn.Module, head: nn.Linear, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.head, self.shape, self.dtype = body, head, shape, dtype
        self._graph: Array | None = None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out

    def acting(self, name: str) -> dict[str, Array]:
        """An MLP's layers as numpy has them; of any other network the tensors by their own names, and its graph."""
        if isinstance(self.body, MLP):
            return _layers(name, [*self.body.stack, self.head])
        if self._graph is None:
            from headrace.algorithms import onnx_graph

            self._graph = onnx_graph.export(self)
        return named_tensors(name, self) | {f"{name}.onnx": self._graph}


class TwinQ(nn.Module):
    """Two MLPs that value actions apart from each other: x [B, F], action [B, D] -> Q [2, B]. ``features``: F + D."""

    def __init__(self, options: NetworkOptions, features: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.one, self.two = (self._critic([features, *options.hidden], options, rng) for _ in range(2))

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        pairs = torch.cat([x, action], -1)
        return torch.cat([self.one(pairs), self.two(pairs)], -1).T.float()

    @staticmethod
    def _critic(widths: list[int], options: NetworkOptions, rng: np.random.Generator) -> nn.Module:
        body = MLP(widths, rng, options.activation, options.layer_norm)
        return nn.Sequential(body, orthogonal(nn.Linear(widths[-1], 1), 1.0, rng))


def make(
    options: NetworkOptions, spaces: Spaces, outputs: int, rng: np.random.Generator, head_gain: float = 1.0
) -> Net:
    """The network that ``options`` asks for. Raises :class:`UsageError` where it does not take such observations."""
    body, features = make_body(options, spaces, rng)
    return Net(body, orthogonal(nn.Linear(features, outputs), head_gain, rng), *shown(spaces))


def make_body(options: NetworkOptions, spaces: Spaces, rng: np.random.Generator) -> tuple[nn.Module, int]:
    """The network without a head, and how many features it gives. Raises :class:`UsageError`, as :func:`make` does."""
    check_network(options, spaces)
    shape, dtype = shown(spaces)
    body = _body(options, shape, rng)
    return body, _features(options.network, body, torch.zeros(2, *shape, dtype=dtype))


def shown(spaces: Spaces) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of an observation as networks have it: vectors are normalised before."""
    if spaces.is_vector:
        return (spaces.features,), torch.float32
    return spaces.obs_shape, getattr(torch, spaces.obs_dtype)


def named_tensors(name: str, module: nn.Module) -> dict[str, Array]:
    """A copy of the module's tensors, as ``{name}.{its own name}``."""
    return {f"{name}.{key}": value.detach().cpu().numpy().copy() for key, value in module.state_dict().items()}


def _body(options: NetworkOptions, shape: tuple[int, ...], rng: np.random.Generator) -> nn.Module:
    setting = f"algorithm.network {options.network!r}"
    if options.network == "mlp":
        return MLP([*shape, *options.hidden], rng, options.activation, options.layer_norm)
    own: Any = IMAGES.get(options.network) or own_code.fetch(options.network, "algorithm.network")
    if not (inspect.isclass(own) and issubclass(own, nn.Module)):
        raise UsageError(f"{setting}: is no torch.nn.Module ({own_code.where(own)})")
    try:
        if options.network in IMAGES:
            body: nn.Module = own(shape, options.hidden, rng)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(2**63)))
                body = own(shape, **options.network_kwargs)
    except Exception as error:
        shown = f"observations {list(shape)}"
        raise UsageError(f"{setting}: cannot be made for {shown}: {own_code.cause(error)}") from error
    return body


def _features(network: str, body: nn.Module, obs: Tensor) -> int:
    """How many features the body gives. Raises :class:`UsageError` if it is not [B, features]."""
    setting = f"algorithm.network {network!r}"
    try:
        with torch.no_grad():
            out: Any = body(obs)
    except Exception as error:
        shape, dtype = list(obs.shape[1:]), str(obs.dtype).removeprefix("torch.")
        raise UsageError(f"{setting}: does not take observations {dtype}{shape}: {own_code.cause(error)}") from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(obs) or not out.is_floating_point():
        found = f"{out.dtype} {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise UsageError(
            f"{setting}: gives {found} for {len(obs)} observations; it must give features, float [{len(obs)}, F] "
            f"({own_code.where(type(body))})"
        )
    return out.shape[1]


def _layers(name: str, layers: Sequence[nn.Module]) -> dict[str, Array]:
    """The acting layout (acting.py): ``{name}.{i}.weight`` [in, out], ``{name}.{i}.bias`` [out], and of a layer norm
    ``{name}.{i}.norm.weight`` and ``{name}.{i}.norm.bias`` [out]."""
    named, i = dict[str, Array](), -1
    for layer in layers:
        if isinstance(layer, nn.Linear):
            i += 1
            named[f"{name}.{i}.weight"] = np.ascontiguousarray(layer.weight.detach().cpu().numpy().T)
            named[f"{name}.{i}.bias"] = layer.bias.detach().cpu().numpy().copy()
        elif isinstance(layer, nn.LayerNorm):
            named[f"{name}.{i}.norm.weight"] = layer.weight.detach().cpu().numpy().copy()
            named[f"{name}.{i}.norm.bias"] = layer.bias.detach().cpu().numpy().copy()
    return named
