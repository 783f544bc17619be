"""What sits on a policy network's output: log-probabilities, entropies, and their gradients written out.

    head = make_head(spaces, flat)
    logp = head.evaluate(out, action)              # [M]; keeps what the gradient needs
    d_out = head.gradient(d_logp, d_entropy)       # d loss / d out, given d loss / d logp [M] and d loss / d (sum of H)

Legend: A actions or action dimensions, M minibatch. Everything is feature-major: out [A, M], action [A or 1, M].
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor

from headrace.algorithms.nets import Flat
from headrace.common.types import Array, Spaces

_LOG_2PI = math.log(2 * math.pi)


class Head(Protocol):
    def evaluate(self, out: Tensor, action: Tensor) -> Tensor: ...

    def gradient(self, d_logp: Tensor, d_entropy: float) -> Tensor: ...

    def entropy(self) -> Tensor:
        """Mean entropy of the last ``evaluate``."""

    def tensors(self) -> dict[str, Array]:
        """What acting needs besides the network."""


def head_shapes(spaces: Spaces) -> dict[str, tuple[int, int]]:
    """Parameters of the head's own, for :class:`Flat`."""
    return {} if spaces.discrete else {"log_std": (spaces.action_dim, 1)}


def make_head(spaces: Spaces, flat: Flat) -> Head:
    return CategoricalHead() if spaces.discrete else GaussianHead(flat)


class CategoricalHead:
    """Softmax over logits. dlogp/dz = onehot - p; dH/dz = -p (log p + H)."""

    def evaluate(self, out: Tensor, action: Tensor) -> Tensor:
        self._action = action
        self._logp = out.log_softmax(0)
        self._p = self._logp.exp()
        self._entropy = -(self._p * self._logp).sum(0)
        return self._logp.gather(0, action)[0]

    def gradient(self, d_logp: Tensor, d_entropy: float) -> Tensor:
        grad = (self._logp + self._entropy).mul_(-d_entropy).sub_(d_logp).mul_(self._p)
        return grad.scatter_add_(0, self._action, d_logp[None])

    def entropy(self) -> Tensor:
        return self._entropy.mean()

    def tensors(self) -> dict[str, Array]:
        return {}


class GaussianHead:
    """Independent normals with their own log_std. dlogp/dmean = z / std; dlogp/dlog_std = z^2 - 1; dH/dlog_std = 1."""

    def __init__(self, flat: Flat) -> None:
        self._log_std = flat.views(flat.value)["log_std"]
        self._d_log_std = flat.views(flat.grad)["log_std"]

    def evaluate(self, out: Tensor, action: Tensor) -> Tensor:
        self._inverse_std = (-self._log_std).exp()
        self._z = (action - out) * self._inverse_std
        return (-0.5 * self._z * self._z - self._log_std - 0.5 * _LOG_2PI).sum(0)

    def gradient(self, d_logp: Tensor, d_entropy: float) -> Tensor:
        self._d_log_std.copy_(((self._z * self._z - 1.0) * d_logp).sum(1, keepdim=True) + d_entropy * len(d_logp))
        return self._z * self._inverse_std * d_logp

    def entropy(self) -> Tensor:
        return self._log_std.sum() + 0.5 * (1 + _LOG_2PI) * len(self._log_std)

    def tensors(self) -> dict[str, Array]:
        return {"log_std": self._log_std.cpu().numpy()[:, 0].copy()}
