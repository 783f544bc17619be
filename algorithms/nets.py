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

from headrace.algorithms.acting import OBS_CLIP
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

    def clip_grad(self, max_norm: float) -> float:
        """Scale the gradient down to ``max_norm`` (Pascanu et al. 2013); returns the norm before. A gradient that is
        not finite (an actor may claim any log-probability) becomes zero, or the parameters would be lost."""
        norm = float(torch.linalg.vector_norm(self.grad))
        if not math.isfinite(norm):
            self.grad.zero_()
        elif norm > max_norm:
            self.grad.mul_(max_norm / norm)
        return norm


class Adam:
    """Adam over one flat vector (Kingma & Ba 2015, algorithm 1)."""

    def __init__(self, flat: Flat, eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self._flat, self._eps, self._betas = flat, eps, betas
        self.first = torch.zeros_like(flat.value)
        self.second = torch.zeros_like(flat.value)
        self.steps = 0
        self._scratch = torch.empty_like(flat.value)

    def step(self, lr: float) -> None:
        self.steps += 1
        (beta1, beta2), grad = self._betas, self._flat.grad
        self.first.lerp_(grad, 1 - beta1)
        self.second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        correction1, correction2 = 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps)
        torch.sqrt(self.second, out=self._scratch).add_(self._eps * correction2)
        self._flat.value.addcdiv_(self.first, self._scratch, value=-lr * correction2 / correction1)

    def tensors(self) -> dict[str, Array]:
        return {"adam.first": self.first.cpu().numpy().copy(), "adam.second": self.second.cpu().numpy().copy()}

    def restore(self, tensors: Mapping[str, Array], steps: int) -> None:
        self.first.copy_(torch.from_numpy(np.array(tensors["adam.first"])))
        self.second.copy_(torch.from_numpy(np.array(tensors["adam.second"])))
        self.steps = steps


class MLP:
    """tanh layers and a linear head over the matrices ``{net}.{i}`` of a :class:`Flat`.

    ``forward`` keeps what ``backward`` needs, per batch size, so steady batches allocate nothing.
    """

    def __init__(self, flat: Flat, net: str, widths: Sequence[int]) -> None:
        value, grad = flat.views(flat.value), flat.views(flat.grad)
        names = [f"{net}.{i}" for i in range(len(widths) - 1)]
        self.weights, self.grads = [value[n] for n in names], [grad[n] for n in names]
        self.widths = list(widths)
        self._buffers: dict[int, list[Tensor]] = {}

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
        """``x_FB`` [features + 1, B], its row of ones last -> head [out, B], overwritten by the next call."""
        buffers = self._buffers_for(x_FB)
        for weight, buffer in zip(self.weights[:-1], buffers, strict=False):
            torch.mm(weight, x_FB, out=buffer[:-1]).tanh_()
            x_FB = buffer
        return torch.mm(self.weights[-1], x_FB, out=buffers[-1])

    def predict(self, x_FB: Tensor) -> Tensor:
        """The same values as ``forward``, kept apart from its buffers: for batches of any size."""
        for weight in self.weights[:-1]:
            h = torch.mm(weight[:, :-1], x_FB[:-1]).add_(weight[:, -1:]).tanh_()
            x_FB = torch.cat([h, x_FB[-1:]])
        return torch.mm(self.weights[-1], x_FB)

    def backward(self, x_FB: Tensor, d_head: Tensor) -> None:
        """Write the gradients, given the input of the last ``forward`` and the loss's gradient by its result."""
        buffers, d = self._buffers_for(x_FB), d_head
        for i in range(len(self.weights) - 1, 0, -1):
            below = buffers[i - 1]
            torch.mm(d, below.t(), out=self.grads[i])
            d = torch.ops.aten.tanh_backward(torch.mm(self.weights[i][:, :-1].t(), d), below[:-1])
        torch.mm(d, x_FB.t(), out=self.grads[0])

    def _buffers_for(self, x_FB: Tensor) -> list[Tensor]:
        batch = x_FB.shape[1]
        if batch not in self._buffers:
            hidden = [torch.ones(width + 1, batch, device=x_FB.device) for width in self.widths[1:-1]]
            self._buffers[batch] = [*hidden, torch.empty(self.widths[-1], batch, device=x_FB.device)]
            if len(self._buffers) > 4:  # uneven batches must not collect buffers for ever
                del self._buffers[next(iter(self._buffers))]
        return self._buffers[batch]

    def tensors(self, net: str) -> dict[str, Array]:
        """The acting layout (algorithms/acting.py): ``{net}.{i}.weight`` [in, out] and ``{net}.{i}.bias`` [out]."""
        named = {}
        for i, weight in enumerate(self.weights):
            matrix = weight.cpu().numpy()
            named[f"{net}.{i}.weight"] = np.ascontiguousarray(matrix[:, :-1].T)
            named[f"{net}.{i}.bias"] = matrix[:, -1].copy()
        return named


class RunningNorm:
    """Running mean and variance per feature (Chan et al. 1979, parallel update), in float64."""

    def __init__(self, features: int) -> None:
        self.mean = np.zeros(features)
        self.var = np.ones(features)
        self.count = 0.0

    def update(self, rows: Array) -> None:
        """Fold in ``rows`` [N, features]."""
        mean, var, n = rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64), len(rows)
        delta, total = mean - self.mean, self.count + n
        self.var = (self.var * self.count + var * n + delta**2 * self.count * n / total) / total
        self.mean = self.mean + delta * n / total
        self.count = total

    @property
    def scale(self) -> Array:
        """1 / standard deviation, float64 [features]; 1 for features that never moved."""
        return 1.0 / np.sqrt(np.where(self.var < 1e-8, 1.0, self.var))

    def tensors(self, name: str) -> dict[str, Array]:
        return {f"{name}.mean": self.mean, f"{name}.var": self.var, f"{name}.count": np.array([self.count])}

    def restore(self, name: str, tensors: Mapping[str, Array]) -> None:
        self.mean, self.var = tensors[f"{name}.mean"].copy(), tensors[f"{name}.var"].copy()
        self.count = float(tensors[f"{name}.count"][0])


class ObsNorm(RunningNorm):
    """Observations as the networks take them: normalised as the actors do, feature-major, a row of ones below."""

    def __init__(self, features: int, enabled: bool, device: str) -> None:
        super().__init__(features)
        self._enabled, self._device = enabled, device

    def update(self, rows: Array) -> None:
        if self._enabled:
            super().update(rows)

    def acting(self) -> dict[str, Array]:
        """The tensors an actor normalises with; none where it is switched off."""
        if not self._enabled:
            return {}
        return {"obs_mean": self.mean.astype(np.float32), "obs_scale": self.scale.astype(np.float32)}

    def inputs(self, obs: Array) -> Tensor:
        """``obs`` [..., F] -> [F + 1, rows]."""
        rows = obs.reshape(-1, len(self.mean)).astype(np.float32, copy=False)
        if shift := self.acting():
            rows = np.clip((rows - shift["obs_mean"]) * shift["obs_scale"], -OBS_CLIP, OBS_CLIP)
        inputs = np.ones((rows.shape[1] + 1, len(rows)), np.float32)
        inputs[:-1] = rows.T
        return torch.from_numpy(inputs).to(self._device)
