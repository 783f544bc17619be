"""Where a learner computes and how: the options of ``[learner]`` that cost or save time and change no mathematics.

    device = Device("cuda", precision="bfloat16", graphs=True)
    step = device.stepper(self._gradient_step)     # the same function, launched the way the device likes best
    figures = step(x, data, action, report=True)

What is handed to :meth:`Device.stepper` reads nothing back to the host and takes what changes from call to call as
tensors; then it can be compiled, and recorded once and replayed. bench/learner_options.py measures what each is worth.
Importing this file costs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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

    def stepper(self, step: Step) -> Step:
        """``step`` made ready for this device; calls give the same results (to rounding, where it is compiled)."""
        if self.compile:
            import torch

            step = torch.compile(step, dynamic=False)
        return Graphed(step) if self.graphs else step


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
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]] = {}

    def __call__(self, *tensors: torch.Tensor, **fixed: Any) -> Any:
        key = (*((t.shape, t.dtype) for t in tensors), *sorted(fixed.items()))
        if key not in self._recorded:
            if key not in self._seen or len(self._recorded) >= _GRAPHS:
                self._remember(key)
                return self._step(*map(_own, tensors), **fixed)
            self._recorded[key] = self._record(tensors, fixed)
        graph, held, result = self._recorded[key]
        for mine, given in zip(held, tensors, strict=True):
            mine.copy_(given)
        graph.replay()
        return result

    def _remember(self, key: Any) -> None:
        if len(self._seen) > 8 * _GRAPHS:  # shapes that hardly ever come back
            self._seen.clear()
        self._seen.add(key)

    def _record(
        self, tensors: tuple[torch.Tensor, ...], fixed: dict[str, Any]
    ) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]:
        import torch

        held = [_own(t) for t in tensors]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._step(*held, **fixed)
        return graph, held, result


def _own(t: torch.Tensor) -> torch.Tensor:
    import torch

    return t.clone(memory_format=torch.contiguous_format)
