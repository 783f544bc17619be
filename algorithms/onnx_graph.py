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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace.algorithms.acting_onnx import check, given, session, without_values
from headrace.common import own_code
from headrace.common.errors import UsageError
from headrace.common.types import Array

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
                net, tuple(inputs.values()), dynamo=True, optimize=False, verbose=False, input_names=list(inputs),
                output_names=["out"], dynamic_shapes=tuple(batch for _ in inputs),
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
                mine = net(*inputs.values()).numpy()
            theirs = runs.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
            if theirs.shape != mine.shape or np.abs(theirs - mine).max() > TOLERANCE * max(1.0, np.abs(mine).max()):
                return False
    except Exception:  # of a kept file that was damaged; what was just made is reported by its maker
        return False
    return True


def _tensors(net: nn.Module) -> dict[str, Array]:
    return {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}


def _inputs(net: Net | Memory, batch: int) -> dict[str, Tensor]:
    """Something of what it is shown; of a memory also a state."""
    rng = np.random.default_rng(0)
    whole = not net.dtype.is_floating_point
    obs = rng.integers(0, 128, (batch, *net.shape)) if whole else rng.standard_normal((batch, *net.shape))
    inputs = {"obs": torch.from_numpy(obs).to(net.dtype)}
    if states := getattr(net, "state_width", 0):
        inputs["state"] = torch.from_numpy(rng.uniform(-1, 1, (batch, states))).float()
    return inputs


def _fingerprint(net: Net | Memory) -> str:
    """Of what a graph depends on, as far as can be told: :func:`_is_right` tells the rest."""
    parts = [torch.__version__, repr(net), str(net.shape), str(net.dtype)]
    for kind in {type(module) for module in net.modules() if not type(module).__module__.startswith("torch.")}:
        file = inspect.getsourcefile(kind)
        parts.append(Path(file).read_text() if file else repr(kind))
    return hashlib.sha256("\0".join(sorted(parts)).encode()).hexdigest()[:32]


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "graphs"


def _named(net: Net | Memory) -> str:
    return f"algorithm.network {type(net.body).__name__} ({own_code.where(type(net.body))})"
