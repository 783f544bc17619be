"""A policy as one ONNX file: the network with its weights, the normaliser before it, the choice of an action after it.

    obs [B, ...] as the environment shows it -> action [B, ...] as the environment takes it

An environment that shows several things has an input for each, called as they travel: obs.image, obs.speed, and
obs.action_mask, bool [B, choices].

A policy that remembers, frames [B, k - 1, ...] or what its memory holds [B, S], takes ``state``, zeros where an episode
begins, and gives ``next_state``:

    obs [B, ...], state -> action, next_state

Standard operators only: any ONNX runtime runs it, no file of ours beside it. Needs no torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from headrace.algorithms.acting import (
    LOG_STD_RANGE,
    CategoricalPolicy,
    EpsilonGreedyPolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    SquashedGaussianPolicy,
)
from headrace.algorithms.acting_inputs import NEVER, OBS_CLIP, codes, laid_out, norms
from headrace.algorithms.acting_memory import RecurrentPolicy
from headrace.algorithms.acting_mlp import JoinedMLP, NumpyMLP
from headrace.algorithms.acting_onnx import OnnxNet
from headrace.algorithms.base import Policy
from headrace.algorithms.export_graph import Graph
from headrace.algorithms.frame_stack import StackedPolicy
from headrace.common.errors import UsageError
from headrace.common.named import array_name
from headrace.common.types import MASK, Array, Field, Spaces, Weights

_ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu"}


def export(
    policy: Policy, weights: Weights, spaces: Spaces, bounds: tuple[Array, Array] | None, sample: bool,
    action_shape: tuple[int, ...] | None = None,
) -> bytes:  # fmt: skip
    """The file. ``bounds``: the lowest and highest action [D], where actions are continuous. ``sample``: draw actions
    as in training instead of taking the best. ``action_shape``: as the environment has it, where that is no vector.
    Raises :class:`UsageError` for a policy that is none of acting.py's."""
    graph = Graph()
    seen, state, policy = _seen(graph, policy, weights, spaces)
    ours = CategoricalPolicy | MultiCategoricalPolicy | GaussianPolicy | SquashedGaussianPolicy | EpsilonGreedyPolicy
    if not isinstance(policy, ours):
        raise UsageError(f"a {type(policy).__name__} has no graph; those of headrace's own policies are exported")
    out = _network(graph, policy.net, weights, seen)
    match policy:
        case CategoricalPolicy():
            out = _masked(graph, out, spaces)
            action = _choose(graph, _gumbel(graph, out) if sample else out, spaces)
        case MultiCategoricalPolicy():
            out = _masked(graph, out, spaces)
            action = _choose_each(graph, _gumbel(graph, out) if sample else out, spaces)
        case EpsilonGreedyPolicy():
            if sample:
                raise UsageError("a Q network has nothing to sample from; export it without --sample")
            action = _choose(graph, _masked(graph, _advantages(graph, out) if policy.dueling else out, spaces), spaces)
        case GaussianPolicy():
            assert bounds is not None, "a Gaussian policy acts within bounds"
            action = _squeeze(graph, _noisy(graph, out, policy.log_std) if sample else out, *bounds)
        case SquashedGaussianPolicy():
            assert bounds is not None, "a Gaussian policy acts within bounds"
            action = _squeeze(graph, _squashed(graph, out, sample), *bounds)
    shape = spaces.action.shape if action_shape is None else action_shape
    graph.add("Reshape", action, graph.constant(np.array([-1, *shape], np.int64)), output="action")
    return _model(graph, spaces, shape, state)


def _seen(
    graph: Graph, policy: Policy, weights: Weights, spaces: Spaces
) -> tuple[dict[str, str], Field | None, Policy]:
    """What the policy proper sees, by name; what is carried from step to step, if anything is; the policy proper."""
    if isinstance(policy, StackedPolicy):
        frames = replace(spaces.obs[""], shape=(policy.k - 1, *spaces.obs_shape))
        return {"": _stack(graph)}, frames, policy.policy
    seen = _observations(graph, weights, spaces)
    if isinstance(policy, RecurrentPolicy):
        state = Field("float32", (policy.memory.state_width,))
        return {"": _remembered(graph, policy, weights, seen)}, state, policy.policy
    return seen, None, policy


def _remembered(graph: Graph, policy: RecurrentPolicy, weights: Weights, x: dict[str, str]) -> str:
    """The memory's step; what the policy behind it sees."""
    after = graph.add("Identity", _network(graph, policy.memory, weights, x), output="next_state")
    return graph.columns(after, 0, policy.width)


def _stack(graph: Graph) -> str:
    """The frames remembered and the one shown, oldest first; all but the oldest are remembered next."""
    frame = graph.add("Unsqueeze", "obs", graph.constant(np.array([1], np.int64)))
    stack = graph.add("Concat", "state", frame, axis=1)
    graph.columns(stack, 1, output="next_state")
    return stack


def _observations(graph: Graph, weights: Weights, spaces: Spaces) -> dict[str, str]:
    """What the network takes, by name: acting_inputs.prepared."""
    normalisers = norms(weights.tensors, spaces.seen)
    found = {}
    for name, field in spaces.seen.items():
        x = array_name("obs", name)
        if field.choices:
            start = np.asarray(field.start, field.dtype)
            x = graph.add("Sub", x, graph.constant(start)) if start.any() else x
        elif field.is_vector:
            x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
            x = x if field.shape else graph.add("Unsqueeze", x, graph.constant(np.array([1], np.int64)))
            mean, scale = normalisers[name]
            if mean is not None and scale is not None:
                x = graph.add("Mul", graph.add("Sub", x, graph.constant(mean)), graph.constant(scale))
                x = graph.add("Clip", x, graph.number(-OBS_CLIP), graph.number(OBS_CLIP))
        found[name] = x
    return found


def _one_hot(graph: Graph, x: str, field: Field) -> str:
    """acting_inputs.one_hot."""
    entry, value = codes(field.choices)
    x = graph.add("Cast", x, to=onnx.TensorProto.INT64)
    x = graph.add("Reshape", x, graph.constant(np.array([-1, len(field.choices)], np.int64)))
    x = graph.add("Equal", graph.add("Gather", x, graph.constant(entry), axis=1), graph.constant(value))
    return graph.add("Cast", x, to=onnx.TensorProto.FLOAT)


def _network(graph: Graph, net: Any, weights: Weights, x: dict[str, str]) -> str:
    if isinstance(net, NumpyMLP):
        return _mlp(graph, net, x[""])
    if isinstance(net, JoinedMLP):
        parts = [_one_hot(graph, x[n], field) if field.choices else x[n] for n, field in net.fields.items()]
        return _mlp(graph, net.mlp, graph.add("Concat", *parts, axis=1))
    assert isinstance(net, OnnxNet)
    model = onnx.ModelProto.FromString(weights.tensors[f"{net.name}.onnx"].tobytes())
    for one in model.graph.initializer:
        graph.constants.append(numpy_helper.from_array(weights.tensors[f"{net.name}.{one.name}"], one.name))
    inputs = {array_name("obs", name): given for name, given in x.items()}
    for node in model.graph.node:
        node.input[:] = [inputs.get(name, name) for name in node.input]
        graph.nodes.append(node)
    return str(model.graph.output[0].name)


def _masked(graph: Graph, scores: str, spaces: Spaces) -> str:
    """acting_inputs.masked."""
    if MASK not in spaces.obs:
        return scores
    return graph.add("Where", array_name("obs", MASK), scores, graph.number(float(NEVER)))


def _mlp(graph: Graph, net: NumpyMLP, x: str) -> str:
    for i, (weight, bias) in enumerate(net.layers):
        x = graph.add("Add", graph.add("MatMul", x, graph.constant(weight)), graph.constant(bias))
        if i == len(net.layers) - 1:
            break
        if net.norms:
            x = graph.add("LayerNormalization", x, *map(graph.constant, net.norms[i]), epsilon=1e-5)
        x = graph.add(_ACTIVATIONS[net.activation_name], x)
    return x


def _choose(graph: Graph, scores: str, spaces: Spaces) -> str:
    best = graph.add("ArgMax", scores, axis=1, keepdims=0)
    start = np.asarray(spaces.action.start, np.int64)
    return graph.add("Add", best, graph.constant(start)) if start.any() else best


def _choose_each(graph: Graph, scores: str, spaces: Spaces) -> str:
    """Of each component: its scores in a row of a table (acting_inputs.laid_out)."""
    place, there = laid_out(spaces.action.choices)
    table = graph.add("Gather", scores, graph.constant(place), axis=1)
    table = graph.add("Where", graph.constant(there), table, graph.number(float(NEVER)))
    best = graph.add("ArgMax", table, axis=2, keepdims=0)
    return graph.add("Add", best, graph.constant(np.asarray(spaces.action.start, np.int64)))


def _gumbel(graph: Graph, logits: str) -> str:
    """Logits plus Gumbel noise: the best of them is a sample of the softmax."""
    uniform = graph.add("RandomUniformLike", logits, low=1e-7, high=1.0)
    exponential = graph.add("Neg", graph.add("Log", uniform))
    return graph.add("Sub", logits, graph.add("Log", graph.add("Max", exponential, graph.number(1e-12))))


def _advantages(graph: Graph, out: str) -> str:
    """Of a dueling head: the best advantage is the best Q."""
    return graph.columns(out, 1)


def _noisy(graph: Graph, mean: str, log_std: Array) -> str:
    noise = graph.add("RandomNormalLike", mean)
    return graph.add("Add", mean, graph.add("Mul", noise, graph.constant(np.exp(log_std))))


def _squashed(graph: Graph, out: str, sample: bool) -> str:
    """Mean and log_std side by side; the tanh of the mean, or of a sample."""
    mean, log_std = "headrace.mean", "headrace.log_std"
    graph.nodes.append(helper.make_node("Split", [out], [mean, log_std], axis=1, num_outputs=2))
    if sample:
        low, high = map(graph.number, LOG_STD_RANGE)
        std = graph.add("Exp", graph.add("Clip", log_std, low, high))
        mean = graph.add("Add", mean, graph.add("Mul", graph.add("RandomNormalLike", mean), std))
    return graph.add("Tanh", mean)


def _squeeze(graph: Graph, action: str, low: Array, high: Array) -> str:
    """From [-1, 1] onto the environment's bounds, as the task does it."""
    inside = graph.add("Clip", action, graph.number(-1.0), graph.number(1.0))
    share = graph.add("Add", inside, graph.number(1.0))
    scaled = graph.add("Mul", share, graph.constant(((high - low) / 2).astype(np.float32).ravel()))
    return graph.add("Add", scaled, graph.constant(low.astype(np.float32).ravel()))


def _model(graph: Graph, spaces: Spaces, action_shape: tuple[int, ...], state: Field | None) -> bytes:
    given = {array_name("obs", name): field for name, field in spaces.obs.items()}
    found = {"action": replace(spaces.action, shape=action_shape)}
    if state is not None:
        given["state"] = found["next_state"] = state
    return graph.model(given, found)
