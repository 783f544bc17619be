"""Where a learner computes and how: the options of ``[learner]`` that cost or save time and change no mathematics.

    device = Device("cuda", precision="bfloat16", graphs=True)
    loss = device.compiled(self._loss)             # the same function, compiled where that is asked for
    step = device.recorded(self._gradient_step)    # loss, backward, clip and optimiser: recorded once, replayed

Neither may read anything back to the host, and what changes from call to call comes in as a tensor.
bench/learner_options.py measures what each is worth.
Importing this file costs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headrace.common import named
from headrace.common.types import Obs

if TYPE_CHECKING:
    import torch

#: A gradient step: tensors by position, what stays the same for good by name; tensors (in any structure) come back.
Step = Callable[..., Any]

#: Argument shapes recorded per step; further ones run without a graph (each graph keeps its own activations).
_GRAPHS = 8


@dataclass(frozen=True)
class Device:
    """``name`` as torch has it. ``precision`` is that of the matrix products in a gradient step; parameters, optimiser
    and losses stay float32. ``compile``: torch.compile. ``graphs``: CUDA graphs, one launch per gradient step."""

    name: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    graphs: bool = False

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def tensor(self, array: Obs) -> Any:
        """``array`` on this device (on the CPU it is the same memory); of observations by name, each."""
        import torch

        if isinstance(array, dict):
            return {name: torch.from_numpy(one).to(self.name) for name, one in array.items()}
        return torch.from_numpy(array).to(self.name)

    def compiled(self, loss: Step) -> Step:
        """``loss`` compiled where that is asked for; calls give the same results, to rounding."""
        if not self.compile:
            return loss
        import torch

        return torch.compile(loss, dynamic=False)

    def recorded(self, step: Step) -> Step:
        """A whole gradient step recorded as a CUDA graph where that is asked for."""
        return Graphed(step) if self.graphs else step

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products inside are of ``precision``."""
        if self.precision == "float32":
            return nullcontext()
        import torch

        # A cached cast would be left out of a recorded step.
        return torch.autocast(self.name.partition(":")[0], self.dtype, cache_enabled=False)


#: What the serial reference runs on.
CPU = Device()


class Graphed:
    """Records ``step`` per shape of its arguments and replays it (https://docs.pytorch.org/docs/stable/notes/cuda.html,
    "CUDA Graphs"). The first call with a shape runs as it is, the second is recorded, all later ones are replayed;
    results lie in the graph's own memory, overwritten by its next call. The first call is laid out in memory as the
    recorded one will be: torch.compile specialises on strides, and nothing can be compiled while a stream is captured.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._seen: set[Any] = set()
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[Any], Any]] = {}

    def __call__(self, *tensors: Any, **fixed: Any) -> Any:
        flat = [one for tensor in tensors for one in named.parts(tensor).values()]
        key = (*((t.shape, t.dtype) for t in flat), *sorted(fixed.items()))
        if key not in self._recorded:
            if key not in self._seen or len(self._recorded) >= _GRAPHS:
                self._remember(key)
                return self._step(*(named.each(_own, tensor) for tensor in tensors), **fixed)
            self._recorded[key] = self._record(tensors, fixed)
        graph, held, result = self._recorded[key]
        for mine, given in zip(held, tensors, strict=True):
            named.each(lambda one, new: one.copy_(new), mine, given)
        graph.replay()
        return result

    def _remember(self, key: Any) -> None:
        if len(self._seen) > 8 * _GRAPHS:  # shapes that hardly ever come back
            self._seen.clear()
        self._seen.add(key)

    def _record(self, tensors: tuple[Any, ...], fixed: dict[str, Any]) -> tuple[torch.cuda.CUDAGraph, list[Any], Any]:
        import torch

        held = [named.each(_own, tensor) for tensor in tensors]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._step(*held, **fixed)
        return graph, held, result


def _own(t: torch.Tensor) -> torch.Tensor:
    import torch

    return t.clone(memory_format=torch.contiguous_format)
