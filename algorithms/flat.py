"""All parameters of some networks in one vector, and Adam over it: clipping, the optimiser, a target network's average
and a checkpoint are one operation each, whatever the networks are.

    flat = Flat({"pi": pi, "vf": vf})      # torch.nn.Modules; their parameters become views of flat.value
    adam = Adam(flat)
    flat.grad.zero_(); loss.backward()     # autograd writes into views of flat.grad
    norm = flat.clip_grad(0.5)
    adam.advance(lr); adam.step()
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from headrace.common.errors import UsageError
from headrace.common.types import Array


class Flat:
    """``modules``: by the name under which their parameters are saved. Float32, on the modules' device."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        parameters = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
        }
        self.value = torch.cat([parameter.detach().reshape(-1) for parameter in parameters.values()])
        self.grad = torch.zeros_like(self.value)
        self._views: dict[str, Tensor] = {}
        at = 0
        for name, parameter in parameters.items():
            end = at + parameter.numel()
            self._views[name] = self.value[at:end].view(parameter.shape)
            parameter.data, parameter.grad = self._views[name], self.grad[at:end].view(parameter.shape)
            at = end

    def tensors(self) -> dict[str, Array]:
        """For a checkpoint: one tensor per parameter, so that another architecture is recognised."""
        return {f"parameters.{name}": view.cpu().numpy().copy() for name, view in self._views.items()}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """Raises :class:`UsageError` when names or shapes are of another architecture."""
        saved = {k.removeprefix("parameters."): v.shape for k, v in tensors.items() if k.startswith("parameters.")}
        mine = {name: tuple(view.shape) for name, view in self._views.items()}
        if saved != mine:
            raise UsageError(f"checkpoint of another network: it has {saved}, this run {mine}")
        for name, view in self._views.items():
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
