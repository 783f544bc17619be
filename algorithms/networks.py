"""Networks an algorithm can ask for by name: a body, any ``torch.nn.Module`` from observations to features, and a
linear head. Several observations have a branch each (branches.py).

    net = make(options, spaces, outputs, rng)     # options: base.NetworkOptions, a part of every Config
    net(x)                                        # observations [B, ...] -> [B, outputs]
    net.acting("pi")                              # the tensors that the actors' half (acting.py) needs of it

Legend: B batch, F features.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace.algorithms.acting import IMAGE_NETWORKS, check_network
from headrace.algorithms.base import NetworkOptions, Tensors
from headrace.algorithms.branches import Branches, Encoder
from headrace.algorithms.images import ImpalaCNN, NatureCNN
from headrace.algorithms.layers import MLP, orthogonal
from headrace.common import named, own_code
from headrace.common.errors import UsageError
from headrace.common.types import Array, Field, Spaces

IMAGES = dict(zip(IMAGE_NETWORKS, (NatureCNN, ImpalaCNN), strict=True))


class Net(nn.Module):
    """``encoder``, ``body`` and a linear head: observations [B, ...], or such by name -> [B, outputs]."""

    def __init__(self, encoder: Encoder, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.body, self.head = encoder, body, head
        self._graph: Array | None = None

    def forward(self, x: Tensors) -> Tensor:
        out: Tensor = self.head(self.body(self.encoder(x)))
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
    """Two MLPs that value actions apart from each other: x [B, F], action [B, D] -> Q [2, B]."""

    def __init__(self, options: NetworkOptions, spaces: Spaces, rng: np.random.Generator) -> None:
        super().__init__()
        self.encoder = Encoder(taken(spaces), joined=True)
        widths = [spaces.features + spaces.action_dim, *options.hidden]
        self.one, self.two = (self._critic(widths, options, rng) for _ in range(2))

    def forward(self, x: Any, action: Tensor) -> Tensor:
        pairs = torch.cat([self.encoder(x), action], -1)
        return torch.cat([self.one(pairs), self.two(pairs)], -1).T.float()

    @staticmethod
    def _critic(widths: list[int], options: NetworkOptions, rng: np.random.Generator) -> nn.Module:
        body = MLP(widths, rng, options.activation, options.layer_norm)
        return nn.Sequential(body, orthogonal(nn.Linear(widths[-1], 1), 1.0, rng))


def make(
    options: NetworkOptions, spaces: Spaces, outputs: int, rng: np.random.Generator, head_gain: float = 1.0
) -> Net:
    """The network that ``options`` asks for. Raises :class:`UsageError` where it does not take such observations."""
    encoder, body, features = make_body(options, spaces, rng)
    return Net(encoder, body, orthogonal(nn.Linear(features, outputs), head_gain, rng))


def make_body(options: NetworkOptions, spaces: Spaces, rng: np.random.Generator) -> tuple[Encoder, nn.Module, int]:
    """The network without a head, and how many features it gives. Raises :class:`UsageError`, as :func:`make` does."""
    check_network(options, spaces)
    fields = taken(spaces)
    encoder = Encoder(fields, joined=options.network == "mlp")
    example = encoder(
        {name: torch.zeros(2, *field.shape, dtype=getattr(torch, field.dtype)) for name, field in fields.items()}
    )
    body = _body(options, named.each(lambda one: tuple(one.shape[1:]), example), rng)
    return encoder, body, _features(options.network, body, example)


def named_tensors(name: str, module: nn.Module) -> dict[str, Array]:
    """A copy of the module's tensors, as ``{name}.{its own name}``."""
    return {f"{name}.{key}": value.detach().cpu().numpy().copy() for key, value in module.state_dict().items()}


def taken(spaces: Spaces) -> dict[str, Field]:
    """What is seen, after the normaliser: vectors are float32."""
    return {
        name: field if field.choices or not field.is_vector else Field("float32", (field.features,))
        for name, field in spaces.seen.items()
    }


def _body(options: NetworkOptions, shape: Any, rng: np.random.Generator) -> nn.Module:
    """``shape``: of what it is given, or shapes by name."""
    setting = f"algorithm.network {options.network!r}"
    if options.network == "mlp":
        return MLP([*shape, *options.hidden], rng, options.activation, options.layer_norm)
    own: Any = IMAGES.get(options.network) or own_code.fetch(options.network, "algorithm.network")
    if not (inspect.isclass(own) and issubclass(own, nn.Module)):
        raise UsageError(f"{setting}: is no torch.nn.Module ({own_code.where(own)})")
    try:
        if options.network in IMAGES and isinstance(shape, Mapping):
            body: nn.Module = Branches(shape, own, options.hidden, rng, options.activation, options.layer_norm)
        elif options.network in IMAGES:
            body = own(shape, options.hidden, rng)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(2**63)))
                body = own(shape, **options.network_kwargs)
    except Exception as error:
        shown = ", ".join(f"{name} {list(one)}".strip() for name, one in named.parts(shape).items())
        raise UsageError(f"{setting}: cannot be made for observations {shown}: {own_code.cause(error)}") from error
    return body


def _features(network: str, body: nn.Module, obs: Any) -> int:
    """How many features the body gives. Raises :class:`UsageError` if it is not [B, features]."""
    setting = f"algorithm.network {network!r}"
    try:
        with torch.no_grad():
            out: Any = body(obs)
    except Exception as error:
        shown = ", ".join(f"{name} {_said(one)}".strip() for name, one in named.parts(obs).items())
        raise UsageError(f"{setting}: does not take observations {shown}: {own_code.cause(error)}") from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2 or not out.is_floating_point():
        found = f"{out.dtype} {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise UsageError(
            f"{setting}: gives {found} for 2 observations; it must give features, float [2, F] "
            f"({own_code.where(type(body))})"
        )
    return out.shape[1]


def _said(obs: Tensor) -> str:
    return f"{str(obs.dtype).removeprefix('torch.')}{list(obs.shape[1:])}"


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
