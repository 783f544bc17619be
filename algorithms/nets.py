"""Small networks with their backward pass written out, for learners whose time is dispatch, not arithmetic.

A minibatch of 256 through two 64x64 networks is 15 MFLOP: autograd and a per-tensor optimiser spend most of its time on
bookkeeping (bench/kernels.py). So parameters are views of one flat vector, gradients are written by the matrix products
themselves, and clipping and Adam each see one vector.

Legend: F features, B batch. Activations are feature-major [F + 1, B] with a last row of ones, so that a bias is the
last column of its matrix [out, in + 1] and its gradient needs no reduction of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from headrace.common.errors import UsageError
from headrace.common.types import Array


class Flat:
    """Named matrices inside one parameter vector and one gradient vector (float32, on ``device``)."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], device: str) -> None:
        self.shapes = dict(shapes)
        size = sum(math.prod(shape) for shape in shapes.values())
        self.value = torch.zeros(size, device=device)
        self.grad = torch.zeros(size, device=device)

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named matrices of ``vector`` (one of ``value``, ``grad`` or a copy of them), sharing its memory."""
        named, at = {}, 0
        for name, shape in self.shapes.items():
            named[name] = vector[at : at + math.prod(shape)].view(shape)
            at += math.prod(shape)
        return named

    def tensors(self) -> dict[str, Array]:
        """For a checkpoint: one tensor per named matrix, so that another architecture is recognised."""
        return {f"parameters.{name}": view.cpu().numpy().copy() for name, view in self.views(self.value).items()}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """Raises :class:`UsageError` when names or shapes are of another architecture."""
        saved = {k.removeprefix("parameters."): v.shape for k, v in tensors.items() if k.startswith("parameters.")}
        if saved != self.shapes:
            raise UsageError(f"checkpoint of another network: it has {saved}, this run {self.shapes}")
        for name, view in self.views(self.value).items():
            view.copy_(torch.from_numpy(np.array(tensors[f"parameters.{name}"])))

    def clip_grad(self, max_norm: float) -> Tensor:
        """Scale the gradient down to ``max_norm`` (Pascanu et al. 2013); returns the norm before. A gradient that is
        not finite (an actor may claim any log-probability) becomes zero, or the parameters would be lost."""
        norm: Tensor = torch.linalg.vector_norm(self.grad)
        self.grad.mul_(norm.reciprocal().mul_(max_norm).clamp_(max=1.0)).nan_to_num_(0.0)  # inf * 0 and nan: 0
        return norm


class Adam:
    """Adam over one flat vector (Kingma & Ba 2015, algorithm 1).

    ``advance`` belongs to the host and ``step`` to the device: what changes from step to step lies in ``_rates``, so
    that a recorded step (device.py) goes on learning.
    """

    def __init__(self, flat: Flat, eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self._flat, self._eps, self._betas = flat, eps, betas
        self.first = torch.zeros_like(flat.value)
        self.second = torch.zeros_like(flat.value)
        self.steps = 0
        self._scratch = torch.empty_like(flat.value)
        self._host = np.zeros(2, np.float32)
        self._rates = torch.from_numpy(self._host).to(flat.value.device)  # on the CPU the same memory
        self._eps_c2, self._minus_c1_per_lr_c2 = self._rates
        self._far = flat.value.device.type != "cpu"
        # As tensors, since a number costs an operation two microseconds more.
        self._new1, self._beta2 = torch.tensor([1 - betas[0], betas[1]], device=flat.value.device)

    def advance(self, lr: float) -> None:
        """Count a step and set its rates. With corrections c1 = 1 - beta1^t and c2 = sqrt(1 - beta2^t) the step is
        first / ((sqrt(second) + eps c2) * -c1 / (lr c2))."""
        self.steps += 1
        beta1, beta2 = self._betas
        correction1, correction2 = 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps)
        self._host[0] = self._eps * correction2
        self._host[1] = -correction1 / (lr * correction2) if lr else -math.inf
        if self._far:
            self._rates.copy_(torch.from_numpy(self._host))

    def step(self) -> None:
        grad = self._flat.grad
        self.first.lerp_(grad, self._new1)
        self.second.mul_(self._beta2).addcmul_(grad, grad, value=1 - self._betas[1])
        torch.sqrt(self.second, out=self._scratch).add_(self._eps_c2).mul_(self._minus_c1_per_lr_c2)
        self._flat.value.addcdiv_(self.first, self._scratch)

    def tensors(self) -> dict[str, Array]:
        return {"adam.first": self.first.cpu().numpy().copy(), "adam.second": self.second.cpu().numpy().copy()}

    def restore(self, tensors: Mapping[str, Array], steps: int) -> None:
        self.first.copy_(torch.from_numpy(np.array(tensors["adam.first"])))
        self.second.copy_(torch.from_numpy(np.array(tensors["adam.second"])))
        self.steps = steps


class MLP:
    """tanh layers and a linear head over the matrices ``{net}.{i}`` of a :class:`Flat`.

    ``forward`` and ``backward`` compute in the precision of their input; parameters and gradients stay float32.
    """

    def __init__(self, flat: Flat, net: str, widths: Sequence[int]) -> None:
        value, grad = flat.views(flat.value), flat.views(flat.grad)
        names = [f"{net}.{i}" for i in range(len(widths) - 1)]
        self.weights, self.grads = [value[n] for n in names], [grad[n] for n in names]
        self.widths = list(widths)
        self._used = self.weights
        self._hidden: list[Tensor] = []
        self._buffers: dict[tuple[int, torch.dtype], list[Tensor]] = {}

    @staticmethod
    def shapes(net: str, widths: Sequence[int]) -> dict[str, tuple[int, int]]:
        """What a :class:`Flat` must hold for this network."""
        return {f"{net}.{i}": (out, into + 1) for i, (into, out) in enumerate(itertools.pairwise(widths))}

    def init_orthogonal(self, head_gain: float, rng: np.random.Generator) -> None:
        """Orthogonal weights, gain sqrt(2) in hidden layers and ``head_gain`` in the last, biases zero."""
        for i, weight in enumerate(self.weights):
            gain = head_gain if i == len(self.weights) - 1 else math.sqrt(2)
            out, into = weight.shape[0], weight.shape[1] - 1
            q, r = np.linalg.qr(rng.standard_normal((max(out, into), min(out, into))))
            q *= np.sign(np.diag(r))
            matrix = gain * (q if out >= into else q.T)
            weight[:, :into] = torch.from_numpy(matrix.astype(np.float32)).to(weight.device)
            weight[:, into] = 0.0

    def forward(self, x_FB: Tensor) -> Tensor:
        """``x_FB`` [features + 1, B], its row of ones last -> head float32 [out, B]; what ``backward`` needs is kept,
        and both are overwritten by the next call."""
        same = x_FB.dtype == torch.float32
        self._used = self.weights if same else [weight.to(x_FB.dtype) for weight in self.weights]
        *self._hidden, head = self._buffers_for(x_FB)
        for weight, buffer in zip(self._used, self._hidden, strict=False):
            torch.mm(weight, x_FB, out=buffer[:-1]).tanh_()
            x_FB = buffer
        return torch.mm(self._used[-1], x_FB, out=head).float()

    def predict(self, x_FB: Tensor) -> Tensor:
        """The same values as ``forward``, kept apart from its buffers: for batches of any size."""
        for weight in self.weights[:-1]:
            h = torch.mm(weight[:, :-1], x_FB[:-1]).add_(weight[:, -1:]).tanh_()
            x_FB = torch.cat([h, x_FB[-1:]])
        return torch.mm(self.weights[-1], x_FB)

    def backward(self, x_FB: Tensor, d_head: Tensor) -> None:
        """Write the gradients, given the input of the last ``forward`` and the loss's gradient by its result."""
        d = d_head if x_FB.dtype == torch.float32 else d_head.to(x_FB.dtype)
        for i in range(len(self.weights) - 1, 0, -1):
            below = self._hidden[i - 1]
            self._write(i, d, below)
            d = torch.ops.aten.tanh_backward(torch.mm(self._used[i][:, :-1].t(), d), below[:-1])
        self._write(0, d, x_FB)

    def _write(self, i: int, d: Tensor, below: Tensor) -> None:
        if d.dtype == torch.float32:
            torch.mm(d, below.t(), out=self.grads[i])
        else:
            self.grads[i].copy_(torch.mm(d, below.t()))

    def _buffers_for(self, x_FB: Tensor) -> list[Tensor]:
        """Hidden activations [width + 1, B] with their row of ones, and the head. On the CPU a steady batch allocates
        nothing; on a GPU torch's allocator is as fast, and a recorded graph has to own what it writes to."""
        key = (x_FB.shape[1], x_FB.dtype)
        if key in self._buffers:
            return self._buffers[key]
        hidden = [x_FB.new_ones(width + 1, key[0]) for width in self.widths[1:-1]]
        buffers = [*hidden, x_FB.new_empty(self.widths[-1], key[0])]
        if x_FB.device.type == "cpu":
            self._buffers[key] = buffers
            if len(self._buffers) > 4:  # uneven batches must not collect buffers for ever
                del self._buffers[next(iter(self._buffers))]
        return buffers

    def tensors(self, net: str) -> dict[str, Array]:
        """The acting layout (algorithms/acting.py): ``{net}.{i}.weight`` [in, out] and ``{net}.{i}.bias`` [out]."""
        named = {}
        for i, weight in enumerate(self.weights):
            matrix = weight.cpu().numpy()
            named[f"{net}.{i}.weight"] = np.ascontiguousarray(matrix[:, :-1].T)
            named[f"{net}.{i}.bias"] = matrix[:, -1].copy()
        return named
