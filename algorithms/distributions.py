"""What a policy network's output means: distributions over actions, as the losses ask for them.

pi = Categorical(logits)          # logits [B, A]
pi.log_prob(action), pi.entropy() # both [B]
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


class Distribution(Protocol):
    def log_prob(self, action: Tensor) -> Tensor: ...

    def entropy(self) -> Tensor: ...


class Categorical:
    """Softmax over ``logits`` [B, A]; actions int64 [B]."""

    def __init__(self, logits: Tensor) -> None:
        self._logp = logits.log_softmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self._logp.gather(-1, action[..., None])[..., 0]

    def entropy(self) -> Tensor:
        return -(self._logp.exp() * self._logp).sum(-1)


class Gaussian:
    """Independent normals: ``mean`` [B, D], ``log_std`` [D]; actions float32 [B, D]."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self._mean, self._log_std = mean, log_std

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self._mean) * (-self._log_std).exp()
        return (-0.5 * z * z - self._log_std - 0.5 * _LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        return (self._log_std + 0.5 * (1 + _LOG_2PI)).sum(-1).expand(self._mean.shape[:-1])
