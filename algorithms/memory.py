"""Recurrent networks: a body, any network from observations to features, and an LSTM or GRU that remembers them.

    memory = make(options, spaces, rng)             # options: base.MemoryOptions
    memory.follow(x, final, batch.arrays)           # what policy and critic see in a batch
    samples = memory.samples(steps, ...)            # for minibatches.shuffled; of each minibatch
    memory.unroll(x, *context)                      # what they see in it, to be differentiated
    memory.acting()                                 # what the actors' half (acting_memory.py) needs of it

Legend: T steps, B columns, F features, W width, S numbers in a state (one array: h, then c where there is one).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace.algorithms import networks
from headrace.algorithms.acting_memory import state_width
from headrace.algorithms.base import MemoryOptions
from headrace.algorithms.frame_stack import begins
from headrace.algorithms.layers import orthonormal
from headrace.algorithms.minibatches import Samples
from headrace.common import named
from headrace.common.types import Array, Spaces

CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}


class Memory(nn.Module):
    """The network of ``options`` as ``body``, [B, ...] -> [B, F], and a ``cell``: an LSTM (Hochreiter & Schmidhuber
    1997) or a GRU (Cho et al. 2014). What is shown, ``x``, is one tensor or several by name."""

    def __init__(self, options: MemoryOptions, spaces: Spaces, rng: np.random.Generator) -> None:
        super().__init__()
        self.encoder, self.body, features = networks.make_body(options, spaces, rng)
        self.cell = CELLS[options.memory](features, options.memory_width)
        for parameter in self.cell.parameters():
            parameter.data = orthonormal(parameter.shape, 1.0, rng) if parameter.ndim > 1 else parameter.data.zero_()
        self.width, self.state_width = options.memory_width, state_width(options)
        self._graph: Array | None = None

    def forward(self, x: Any, state: Tensor) -> Tensor:
        """One step: x [B, ...], state [B, S] -> the next state [B, S]."""
        return self._step(self.body(self.encoder(x)), state)

    def unroll(self, x: Any, state: Tensor, begins: Tensor, *, burn_in: int = 0) -> Any:
        """What is remembered (h) after each of ``x`` [T, B, ...], [T, B, W], with its mask. ``state`` [1, B, S] comes
        before them, and zeros come before an observation with which an episode ``begins``, bool [T, B]. No gradient
        flows from later steps into the first ``burn_in``."""
        return named.instead(self._states(x, state, begins, burn_in)[..., : self.width], x)

    @torch.no_grad()
    def follow(self, x: Any, final: Any, arrays: Mapping[str, Array]) -> tuple[Any, Any]:
        """What is remembered after the observations ``x`` [T + 1, B, ...] of a batch, [T + 1, B, W], and after those
        its episodes ended with, ``final`` [K, ...], [K, W]."""
        states = self._states(x, *context(arrays, next(self.parameters()).device))
        before = states[arrays["final_t"], arrays["final_b"]]
        after = self(final, before) if len(before) else before
        return named.instead(states[..., : self.width], x), named.instead(after[..., : self.width], final)

    def samples(self, steps: Sequence[Any], arrays: Mapping[str, Array], chosen: Array, minibatch: int) -> Samples:
        """Minibatches of ``steps`` [T, B, ...] and of what :meth:`unroll` needs besides: whole columns, as many as have
        ``minibatch`` steps."""
        state, first = context(arrays, steps[-1].device)
        T, B = arrays["reward"].shape
        return Samples((*steps, state, first[:-1]), np.arange(B), max(1, minibatch // T), axis=1)

    def acting(self) -> dict[str, Array]:
        """The tensors by their own names, and the graph of one step."""
        if self._graph is None:
            from headrace.algorithms import onnx_graph

            self._graph = onnx_graph.export(self)
        return networks.named_tensors("memory", self) | {"memory.onnx": self._graph}

    def _states(self, x: Any, state: Tensor, begins: Tensor, burn_in: int = 0) -> Tensor:
        rows = named.each(lambda one: one.flatten(0, 1), x)
        features = self.body(self.encoder(rows)).unflatten(0, begins.shape)
        states, after = [], state[0]
        for t, (step, goes_on) in enumerate(zip(features, ~begins[..., None], strict=True)):
            after = self._step(step, (after.detach() if t == burn_in else after) * goes_on)
            states.append(after)
        return torch.stack(states)

    def _step(self, features: Tensor, state: Tensor) -> Tensor:
        if isinstance(self.cell, nn.GRUCell):
            after: Tensor = self.cell(features, state)
            return after
        h, c = state.chunk(2, -1)
        return torch.cat(self.cell(features, (h, c)), -1)


class Memoryless(nn.Module):
    """The same for policies that act on what they see, and samples that are single steps."""

    def unroll(self, x: Any) -> Any:
        return x

    def follow(self, x: Any, final: Any, arrays: Mapping[str, Array]) -> tuple[Any, Any]:
        return x, final

    def samples(self, steps: Sequence[Any], arrays: Mapping[str, Array], chosen: Array, minibatch: int) -> Samples:
        return Samples([named.each(lambda one: one.flatten(0, 1), step) for step in steps], chosen, minibatch)

    def acting(self) -> dict[str, Array]:
        return {}


def make(options: MemoryOptions, spaces: Spaces, rng: np.random.Generator) -> Memory | Memoryless:
    """The memory that ``options`` asks for. Raises what :func:`networks.make` raises."""
    return Memory(options, spaces, rng) if options.memory else Memoryless()


def context(arrays: Mapping[str, Array], device: torch.device) -> tuple[Tensor, Tensor]:
    """Of a batch: the states before it [1, B, S], and whether an episode begins with an observation, [T + 1, B]."""
    return torch.from_numpy(arrays["state"][None]).to(device), torch.from_numpy(begins(arrays)).to(device)
