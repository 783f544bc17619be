"""What a policy network's output means: distributions over actions, as the losses ask for them.

pi = Categorical(logits)          # logits [B, A]
pi.log_prob(action), pi.entropy() # both [B]
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor
from torch.nn.functional import softplus

from headrace.algorithms import acting_inputs
from headrace.algorithms.base import Tensors
from headrace.common import named

NEVER = float(acting_inputs.NEVER)
_LOG_2PI = math.log(2 * math.pi)


class Distribution(Protocol):
    def log_prob(self, action: Tensor) -> Tensor: ...

    def entropy(self) -> Tensor: ...


def masked(scores: Tensor, x: Tensors) -> Tensor:
    """``scores`` [B, choices] with those that the mask among the observations ``x`` forbids so low that they have
    neither probability nor gradient, and no argmax takes them."""
    mask = named.mask(x)
    return scores if mask is None else scores.masked_fill(~mask, NEVER)


class Categorical:
    """Softmax over ``logits`` [B, A]; actions int64 [B]."""

    def __init__(self, logits: Tensor) -> None:
        self._logp = logits.log_softmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self._logp.gather(-1, action[..., None])[..., 0]

    def entropy(self) -> Tensor:
        return -(self._logp.exp() * self._logp).sum(-1)


class MultiCategorical:
    """A softmax for each component of an action, each over its part of ``logits`` [B, sum of choices]; actions int64
    [B, D]. Of two choices it is a Bernoulli. ``place`` and ``there`` lay the logits out as a table (acting_inputs.py:
    laid_out)."""

    def __init__(self, logits: Tensor, place: Tensor, there: Tensor) -> None:
        self._each = Categorical(logits[..., place].masked_fill(~there, NEVER))

    def log_prob(self, action: Tensor) -> Tensor:
        return self._each.log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        return self._each.entropy().sum(-1)


class Gaussian:
    """Independent normals: ``mean`` [B, D], ``log_std`` [D]; actions float32 [B, D]."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self._mean, self._log_std = mean, log_std

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self._mean) * (-self._log_std).exp()
        return (-0.5 * z * z - self._log_std - 0.5 * _LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        return (self._log_std + 0.5 * (1 + _LOG_2PI)).sum(-1).expand(self._mean.shape[:-1])


class SquashedGaussian:
    """The tanh of independent normals: ``mean`` and ``log_std`` [B, D]; actions float32 [B, D] in (-1, 1)."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self._mean, self._log_std = mean, log_std

    def rsample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The actions that standard normal ``noise`` [B, D] leads to, and their log-densities [B]; both may be
        differentiated by mean and log_std.

        log pi(a) = log N(u) - sum log(1 - tanh^2 u), a = tanh u (Haarnoja et al. 2018b, appendix C). Of a saturated
        action 1 - tanh^2 u is 0 in floats; 2 (log 2 - u - softplus(-2 u)) is its logarithm everywhere.
        """
        u = self._mean + self._log_std.exp() * noise
        log_normal = -0.5 * noise * noise - self._log_std - 0.5 * _LOG_2PI
        log_slope = 2 * (math.log(2) - u - softplus(-2 * u))
        return u.tanh(), (log_normal - log_slope).sum(-1)
