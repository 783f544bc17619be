"""The learner's half of acting_onnx.py: the graph of a network, by torch's exporter, without its weights.

What was exported is kept in the user's cache folder, since the first export of a process takes seconds; and whether
kept or made anew, the graph is held against the network itself before anybody acts with it.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace.algorithms.acting_onnx import check, given, session, without_values
from headrace.common import named, own_code
from headrace.common.errors import UsageError
from headrace.common.types import Array, Field

if TYPE_CHECKING:
    from headrace.algorithms.memory import Memory
    from headrace.algorithms.networks import Net

#: How far the graph's outputs may be from the network's, relative to the largest of them.
TOLERANCE = 1e-4


def export(net: Net | Memory) -> Array:
    """The graph, uint8 [bytes]: ``obs`` (and ``state``, of a memory's step) -> ``out``. Raises
    :class:`UsageError` for a network that ONNX cannot express."""
    kept = _folder() / f"{_fingerprint(net)}.onnx"
    if kept.is_file() and _is_right(graph := kept.read_bytes(), net):
        return np.frombuffer(graph, np.uint8)
    graph = _export(net)
    if not _is_right(graph, net):
        raise UsageError(f"{_named(net)}: its ONNX graph does not compute what the network does")
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(graph)
    unfinished.replace(kept)
    return np.frombuffer(graph, np.uint8)


def _export(net: Net | Memory) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    was_training = net.training
    net.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs, batch = _inputs(net, 2), {0: torch.export.Dim("batch")}
            program: Any = torch.onnx.export(
                net, kwargs=inputs, dynamo=True, optimize=False, verbose=False, input_names=list(_called(inputs)),
                output_names=["out"],
                dynamic_shapes={name: named.each(lambda _: batch, value) for name, value in inputs.items()},
            )  # fmt: skip
        graph = without_values(program.model_proto)
        given(check(graph), _tensors(net))
    except UsageError as error:
        raise UsageError(f"{_named(net)}: {error}") from error
    except Exception as error:
        raise UsageError(f"{_named(net)}: ONNX cannot express it: {own_code.cause(error)}") from error
    finally:
        net.train(was_training)
    return graph


def _is_right(graph: bytes, net: Net | Memory) -> bool:
    """Whether it computes what the network does, for 1 and for 3 observations."""
    try:
        runs = session(graph, given(check(graph), _tensors(net)))
        for batch in (1, 3):
            inputs = _inputs(net, batch)
            with torch.no_grad():
                mine = net(**inputs).numpy()
            given_by_name = {name: tensor.numpy() for name, tensor in _called(inputs).items()}
            theirs = runs.run(None, {one.name: given_by_name[one.name] for one in runs.get_inputs()})[0]
            if theirs.shape != mine.shape or np.abs(theirs - mine).max() > TOLERANCE * max(1.0, np.abs(mine).max()):
                return False
    except Exception:  # of a kept file that was damaged; what was just made is reported by its maker
        return False
    return True


def _tensors(net: nn.Module) -> dict[str, Array]:
    return {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}


def _inputs(net: Net | Memory, batch: int) -> dict[str, Any]:
    """Something of what it is shown, ``x``, one tensor or by name; of a memory also a ``state``."""
    rng = np.random.default_rng(0)

    def some(field: Field) -> Tensor:
        shape = (batch, *field.shape)
        if field.dtype.startswith("float"):
            return torch.from_numpy(rng.standard_normal(shape)).to(getattr(torch, field.dtype))
        return torch.from_numpy(rng.integers(0, field.below or 128, shape)).to(getattr(torch, field.dtype))

    inputs = {"x": named.each(some, named.alone(net.encoder.fields))}
    if states := getattr(net, "state_width", 0):
        inputs["state"] = torch.from_numpy(rng.uniform(-1, 1, (batch, states))).float()
    return inputs


def _called(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """As the graph calls them: observations as they travel."""
    return {**named.spread("obs", inputs["x"]), **{name: one for name, one in inputs.items() if name != "x"}}


def _fingerprint(net: Net | Memory) -> str:
    """Of what a graph depends on, as far as can be told: :func:`_is_right` tells the rest."""
    parts = [torch.__version__, repr(net), repr(net.encoder.fields)]
    for kind in {type(module) for module in net.modules() if not type(module).__module__.startswith("torch.")}:
        file = inspect.getsourcefile(kind)
        parts.append(Path(file).read_text() if file else repr(kind))
    return hashlib.sha256("\0".join(sorted(parts)).encode()).hexdigest()[:32]


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "graphs"


def _named(net: Net | Memory) -> str:
    return f"algorithm.network {type(net.body).__name__} ({own_code.where(type(net.body))})"
