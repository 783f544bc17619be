"""Adam over one flat vector of all parameters: clipping, the optimiser and a target network's average are one operation
each, whatever the networks are.

    adam = Adam(Flat(pi, vf))           # torch.nn.Modules; their parameters become views of one vector
    adam.advance(learning_rate)         # the host's half of a step
    norm = adam.minimise(loss, 0.5)     # the device's half: backward, clip, step; may be recorded (device.py)

`torch.optim` is not used because making any optimiser of it imports torch's compiler: 1.7 s of every start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


class Flat:
    """The parameters of ``modules`` as views of one vector ``value`` and their gradients as views of ``grad``, float32
    [parameters], on the modules' device. (Autograd adds to a gradient that is there already, in place.)"""

    def __init__(self, *modules: nn.Module) -> None:
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        self.value = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        self.grad = torch.zeros_like(self.value)
        at = 0
        for parameter in self.parameters:
            part = slice(at, at := at + parameter.numel())
            parameter.data = self.value[part].view(parameter.shape)
            parameter.grad = self.grad[part].view(parameter.shape)

    def clip_grad(self, max_norm: float) -> Tensor:
        """Scale the gradient down to ``max_norm`` (Pascanu et al. 2013); returns the norm before. A gradient that is
        not finite (an actor may claim any log-probability) becomes zero, or the parameters would be lost."""
        norm: Tensor = torch.linalg.vector_norm(self.grad)
        self.grad.mul_(norm.reciprocal().mul_(max_norm).clamp_(max=1.0)).nan_to_num_(0.0)  # inf * 0 and nan: 0
        return norm


class Adam:
    """Kingma & Ba 2015, algorithm 1.

    ``advance`` belongs to the host and ``minimise`` to the device: what changes from step to step lies in ``_rates``,
    so that a recorded step goes on learning.
    """

    def __init__(self, flat: Flat, eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self._flat, self._eps, self._betas = flat, eps, betas
        device = flat.value.device
        self.first, self.second = torch.zeros_like(flat.value), torch.zeros_like(flat.value)
        self.steps = 0
        self._scratch = torch.empty_like(flat.value)
        self._host = np.zeros(2, np.float32)
        self._rates = torch.from_numpy(self._host).to(device)  # on the CPU the same memory
        self._eps_c2, self._minus_c1_per_lr_c2 = self._rates
        self._far = device.type != "cpu"
        # As tensors, since a number costs an operation two microseconds more.
        self._new1, self._beta2 = torch.tensor([1 - betas[0], betas[1]], device=device)

    def advance(self, learning_rate: float) -> None:
        """Count a step and set its rates. With corrections c1 = 1 - beta1^t and c2 = sqrt(1 - beta2^t) the step is
        first / ((sqrt(second) + eps c2) * -c1 / (lr c2))."""
        self.steps += 1
        beta1, beta2 = self._betas
        correction1, correction2 = 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps)
        self._host[0] = self._eps * correction2
        self._host[1] = -correction1 / (learning_rate * correction2) if learning_rate else -math.inf
        if self._far:
            self._rates.copy_(torch.from_numpy(self._host))

    def minimise(self, loss: Tensor, max_grad_norm: float) -> Tensor:
        """One step down the gradient of ``loss`` by these parameters, no others; returns its norm before clipping."""
        grad = self._flat.grad.zero_()
        loss.backward(inputs=self._flat.parameters)  # type: ignore[no-untyped-call]
        norm = self._flat.clip_grad(max_grad_norm)
        self.first.lerp_(grad, self._new1)
        self.second.mul_(self._beta2).addcmul_(grad, grad, value=1 - self._betas[1])
        torch.sqrt(self.second, out=self._scratch).add_(self._eps_c2).mul_(self._minus_c1_per_lr_c2)
        self._flat.value.addcdiv_(self.first, self._scratch)
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """What a step depends on, as torch's modules and optimisers say it."""
        return {"first": self.first, "second": self.second, "steps": torch.tensor([self.steps])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The opposite, in place."""
        self.first.copy_(state["first"])
        self.second.copy_(state["second"])
        self.steps = int(state["steps"][0])
