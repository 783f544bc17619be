"""A policy as one ONNX file: the network with its weights, the normaliser before it, the choice of an action after it.

    obs [B, ...] as the environment shows it -> action [B] or [B, D] as the environment takes it

One that remembers has a second input, ``state`` [B, S], zeros before an episode, and gives the next: ``next_state``.
Standard operators only: any ONNX runtime runs it, no file of ours beside it. Needs no torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from headrace.algorithms.acting import (
    LOG_STD_RANGE,
    OBS_CLIP,
    CategoricalPolicy,
    EpsilonGreedyPolicy,
    GaussianPolicy,
    NumpyMLP,
    SquashedGaussianPolicy,
)
from headrace.algorithms.acting_memory import RecurrentPolicy
from headrace.algorithms.acting_onnx import OnnxNet
from headrace.algorithms.base import Policy
from headrace.common.errors import UsageError
from headrace.common.types import Array, Spaces, Weights

#: Of the graphs written here: has LayerNormalization, and is three years old.
OPSET, IR_VERSION = 20, 9
_ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu"}


class _Graph:
    """Nodes and constants under way; names are counted, but for those that a network came with."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"headrace.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: Array) -> str:
        name = f"headrace.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))


def export(policy: Policy, weights: Weights, spaces: Spaces, bounds: tuple[Array, Array] | None, sample: bool) -> bytes:
    """The file. ``bounds``: the lowest and highest action [D], where actions are continuous. ``sample``: draw actions
    as in training instead of taking the best. Raises :class:`UsageError` for a policy that is none of acting.py's."""
    graph, states = _Graph(), 0
    x = _observation(graph, weights, spaces)
    if isinstance(policy, RecurrentPolicy):
        x, states, policy = _remembered(graph, policy, weights, x), policy.memory.state_width, policy.policy
    if not isinstance(policy, CategoricalPolicy | GaussianPolicy | SquashedGaussianPolicy | EpsilonGreedyPolicy):
        raise UsageError(f"a {type(policy).__name__} has no graph; those of headrace's own policies are exported")
    out = _network(graph, policy.net, weights, x)
    match policy:
        case CategoricalPolicy():
            _choose(graph, _gumbel(graph, out) if sample else out)
        case EpsilonGreedyPolicy():
            if sample:
                raise UsageError("a Q network has nothing to sample from; export it without --sample")
            _choose(graph, _advantages(graph, out) if policy.dueling else out)
        case GaussianPolicy():
            assert bounds is not None, "a Gaussian policy acts within bounds"
            _squeeze(graph, _noisy(graph, out, policy.log_std) if sample else out, *bounds)
        case SquashedGaussianPolicy():
            assert bounds is not None, "a Gaussian policy acts within bounds"
            _squeeze(graph, _squashed(graph, out, sample), *bounds)
    return _model(graph, spaces, states)


def _observation(graph: _Graph, weights: Weights, spaces: Spaces) -> str:
    """What the network takes: acting.normalised."""
    if not spaces.is_vector:
        return "obs"
    x = graph.add("Cast", "obs", to=onnx.TensorProto.FLOAT)
    if not spaces.obs_shape:
        x = graph.add("Unsqueeze", x, graph.constant(np.array([1], np.int64)))
    if "obs_mean" not in weights.tensors:
        return x
    x = graph.add("Sub", x, graph.constant(weights.tensors["obs_mean"]))
    x = graph.add("Mul", x, graph.constant(weights.tensors["obs_scale"]))
    return graph.add("Clip", x, graph.number(-OBS_CLIP), graph.number(OBS_CLIP))


def _network(graph: _Graph, net: Any, weights: Weights, x: str) -> str:
    if isinstance(net, NumpyMLP):
        return _mlp(graph, net, x)
    assert isinstance(net, OnnxNet)
    model = onnx.ModelProto.FromString(weights.tensors[f"{net.name}.onnx"].tobytes())
    for one in model.graph.initializer:
        graph.constants.append(numpy_helper.from_array(weights.tensors[f"{net.name}.{one.name}"], one.name))
    for node in model.graph.node:
        node.input[:] = [x if name == "obs" else name for name in node.input]
        graph.nodes.append(node)
    return str(model.graph.output[0].name)


def _remembered(graph: _Graph, policy: RecurrentPolicy, weights: Weights, x: str) -> str:
    """The memory's step; what the policy behind it sees."""
    after = graph.add("Identity", _network(graph, policy.memory, weights, x), output="next_state")
    first, last, axis = (graph.constant(np.array([n], np.int64)) for n in (0, policy.width, 1))
    return graph.add("Slice", after, first, last, axis)


def _mlp(graph: _Graph, net: NumpyMLP, x: str) -> str:
    for i, (weight, bias) in enumerate(net.layers):
        x = graph.add("Add", graph.add("MatMul", x, graph.constant(weight)), graph.constant(bias))
        if i == len(net.layers) - 1:
            break
        if net.norms:
            x = graph.add("LayerNormalization", x, *map(graph.constant, net.norms[i]), epsilon=1e-5)
        x = graph.add(_ACTIVATIONS[net.activation_name], x)
    return x


def _choose(graph: _Graph, scores: str) -> None:
    graph.add("ArgMax", scores, output="action", axis=1, keepdims=0)


def _gumbel(graph: _Graph, logits: str) -> str:
    """Logits plus Gumbel noise: the best of them is a sample of the softmax."""
    uniform = graph.add("RandomUniformLike", logits, low=1e-7, high=1.0)
    exponential = graph.add("Neg", graph.add("Log", uniform))
    return graph.add("Sub", logits, graph.add("Log", graph.add("Max", exponential, graph.number(1e-12))))


def _advantages(graph: _Graph, out: str) -> str:
    """Of a dueling head: the best advantage is the best Q."""
    first, last, axis = (graph.constant(np.array([n], np.int64)) for n in (1, np.iinfo(np.int64).max, 1))
    return graph.add("Slice", out, first, last, axis)


def _noisy(graph: _Graph, mean: str, log_std: Array) -> str:
    noise = graph.add("RandomNormalLike", mean)
    return graph.add("Add", mean, graph.add("Mul", noise, graph.constant(np.exp(log_std))))


def _squashed(graph: _Graph, out: str, sample: bool) -> str:
    """Mean and log_std side by side; the tanh of the mean, or of a sample."""
    mean, log_std = "headrace.mean", "headrace.log_std"
    graph.nodes.append(helper.make_node("Split", [out], [mean, log_std], axis=1, num_outputs=2))
    if sample:
        low, high = map(graph.number, LOG_STD_RANGE)
        std = graph.add("Exp", graph.add("Clip", log_std, low, high))
        mean = graph.add("Add", mean, graph.add("Mul", graph.add("RandomNormalLike", mean), std))
    return graph.add("Tanh", mean)


def _squeeze(graph: _Graph, action: str, low: Array, high: Array) -> None:
    """From [-1, 1] onto the environment's bounds, as the task does it."""
    inside = graph.add("Clip", action, graph.number(-1.0), graph.number(1.0))
    share = graph.add("Add", inside, graph.number(1.0))
    scaled = graph.add("Mul", share, graph.constant(((high - low) / 2).astype(np.float32)))
    graph.add("Add", scaled, graph.constant(low.astype(np.float32)), output="action")


def _model(graph: _Graph, spaces: Spaces, states: int) -> bytes:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(spaces.obs_dtype))
    obs = helper.make_tensor_value_info("obs", dtype, ["batch", *spaces.obs_shape])
    kind, shape = (onnx.TensorProto.INT64, []) if spaces.discrete else (onnx.TensorProto.FLOAT, [spaces.action_dim])
    action = helper.make_tensor_value_info("action", kind, ["batch", *shape])
    before, after = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", states])] if states else []
        for name in ("state", "next_state")
    )
    made = helper.make_graph(graph.nodes, "policy", [obs, *before], [action, *after], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "headrace"
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
