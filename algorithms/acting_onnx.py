"""The acting half of every network that is no MLP: ONNX Runtime, no torch. The graph travels with the weights.

Tensors by name: ``{net}.onnx`` uint8 [bytes], the graph, whose initialisers have no values of their own but are the
tensors ``{net}.{initialiser}``, new in every version; ``obs_mean`` and ``obs_scale`` as in acting.py.

A graph is a program, and it came over the wire. It is taken only if it is small, has operators of the standard alone
(no functions, no graphs in graphs: no loops), and names no tensors but those that came with it: ONNX would let it name
files. What it may still do is compute for long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from headrace.algorithms.acting_inputs import norms, prepared
from headrace.common import named
from headrace.common.errors import UsageError
from headrace.common.types import Array, Spaces

#: What a graph without weights may come to; those that ship have some 2 kB and 30 nodes.
MAX_GRAPH_BYTES, MAX_NODES = 1 << 20, 10_000
#: Values written into the graph itself (a shape, a constant), in all.
MAX_CONSTANT_BYTES = 1 << 16
_STANDARD = ("", "ai.onnx")
#: Of each initialiser its dtype and shape.
Needed = dict[str, tuple[str, tuple[int, ...]]]


class OnnxNet:
    """A network read out of a weights' tensors. Call it with obs [B, ...], by name where there are several, and with a
    state, float32 [B, state_width], where that is not 0; returns float32 [B, outputs]. The graph's inputs are called as
    observations travel, ``obs``, or ``obs.image``, ..., and ``state``."""

    def __init__(self, name: str, spaces: Spaces, outputs: int, state_width: int = 0) -> None:
        self.name, self.state_width, self.fields, self._outputs = name, state_width, spaces.seen, outputs
        self._graph, self._needed = b"", Needed()
        self._session: Any = None
        self._inputs: list[str] = []
        self._norms = norms({}, self.fields)

    def load(self, tensors: Mapping[str, Array]) -> None:
        if f"{self.name}.onnx" not in tensors:
            raise UsageError(f"weights hold no network {self.name!r}: no {self.name}.onnx among {sorted(tensors)[:8]}")
        graph, is_new = tensors[f"{self.name}.onnx"].tobytes(), False
        if graph != self._graph:
            self._needed, is_new = check(graph), True
        values = given(self._needed, {key.removeprefix(f"{self.name}."): value for key, value in tensors.items()})
        self._session = None  # the old one goes first: two at a time cost an actor with a CNN some 8 MB for good
        try:
            self._session = session(graph, values)
        except Exception as error:  # whatever the runtime makes of a graph from elsewhere
            raise _unfit(self.name, f"it cannot be loaded: {_one_line(error)}") from error
        self._inputs = [one.name for one in self._session.get_inputs()]
        state = {"state"} if self.state_width else set()
        if unknown := set(self._inputs) - named.spread("obs", self.fields).keys() - state:
            raise _unfit(self.name, f"it takes {', '.join(sorted(unknown))}, which nothing that is shown is called")
        self._norms = norms(tensors, self.fields)
        if is_new:
            self._try()
        self._graph = graph

    def __call__(self, obs: Any, state: Array | None = None) -> Array:
        parts = named.parts(obs)
        feed = {
            named.array_name("obs", name): prepared(parts[name], field, *self._norms[name])
            for name, field in self.fields.items()
        }
        if state is not None:
            feed["state"] = state
        out: Array = self._session.run(None, {name: feed[name] for name in self._inputs})[0]
        return out

    def _try(self) -> None:
        """Its first run, on nothing. Raises :class:`UsageError` unless the outputs fit."""
        obs = {name: np.zeros((2, *field.shape), field.dtype) for name, field in self.fields.items()}
        state = np.zeros((2, self.state_width), np.float32) if self.state_width else None
        try:
            out = self(obs, state)
        except Exception as error:
            raise _unfit(self.name, f"it does not run: {_one_line(error)}") from error
        if out.dtype != np.float32 or out.shape != (2, self._outputs):
            raise _unfit(
                self.name, f"gives {out.dtype}{list(out.shape)} for two observations, not {self._outputs} each"
            )


def check(graph: bytes) -> Needed:
    """What a graph must be given. Raises :class:`UsageError` for one that is not to be run."""
    import onnx

    if len(graph) > MAX_GRAPH_BYTES:
        raise UsageError(f"the weights' graph has {len(graph)} bytes; the most taken is {MAX_GRAPH_BYTES}")
    try:
        model = onnx.ModelProto.FromString(graph)
        _check_nodes(model)
        return {one.name: (_dtype(one.data_type), tuple(one.dims)) for one in model.graph.initializer}
    except (DecodeError, KeyError) as error:
        raise UsageError(f"the weights' graph is no ONNX: {error}") from error


def given(needed: Needed, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors that a graph needs. Raises :class:`UsageError` where one is not there or does not fit."""
    for name, (dtype, shape) in needed.items():
        there = tensors.get(name)
        if there is None or there.shape != shape or str(there.dtype) != dtype:
            found = "is not there" if there is None else f"is {there.dtype}{list(there.shape)}"
            raise UsageError(f"the weights' graph needs {name!r}, {dtype}{list(shape)}, and it {found}")
    return {name: tensors[name] for name in needed}


def _check_nodes(model: Any) -> None:
    import onnx

    nodes = model.graph.node
    if len(nodes) > MAX_NODES:
        raise UsageError(f"the weights' graph has {len(nodes)} nodes; the most taken is {MAX_NODES}")
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _STANDARD})
    if foreign or model.functions:
        named = foreign or sorted(f"{one.domain}.{one.name}" for one in model.functions)
        raise UsageError(f"the weights' graph has operators beyond ONNX's own: {', '.join(named)[:200]}")
    if model.graph.sparse_initializer or model.training_info:
        raise UsageError("the weights' graph has sparse initialisers or training steps; neither is taken")
    constants = 0
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse_tensor"):
                raise UsageError(f"the weights' graph has a graph within its node {node.op_type}; none is taken")
            for tensor in (attribute.t, *attribute.tensors):
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    raise UsageError(f"the weights' graph names a file in its node {node.op_type}; none is read")
            constants += attribute.ByteSize()
    if constants > MAX_CONSTANT_BYTES:
        raise UsageError(f"the weights' graph has {constants} bytes of constants; the most is {MAX_CONSTANT_BYTES}")


def session(graph: bytes, initialisers: Mapping[str, Array]) -> Any:
    """An ``onnxruntime.InferenceSession`` of one thread; initialisers are taken from memory by their names."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    values = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in initialisers.values()]
    options.add_external_initializers(list(initialisers), values)
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _dtype(data_type: int) -> str:
    import onnx

    return str(onnx.helper.tensor_dtype_to_np_dtype(data_type))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _unfit(name: str, what: str) -> UsageError:
    return UsageError(f"the weights' graph {name!r} is of another network than this run's: {what}")


def without_values(model: Any) -> bytes:
    """``model`` (an onnx.ModelProto) with its initialisers' values left out: they are given by name; and without what
    its exporter noted beside (where in which file each node comes from: most of the bytes). In place."""
    import onnx

    for noted in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del noted.metadata_props[:]
        noted.ClearField("doc_string")
    for one in model.graph.initializer:
        del one.external_data[:]
        for values in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            one.ClearField(values)
        one.data_location = onnx.TensorProto.EXTERNAL
        one.external_data.add(key="location", value="given by name")
    return bytes(model.SerializeToString())
