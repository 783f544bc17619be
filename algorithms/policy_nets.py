"""The learning half of policies: a network and the distribution that its output is the parameters of.

    pi = make(options, spaces, rng)
    pi(x).log_prob(action)      # x [B, F], or by name where several things are shown: the mask is among them
    pi.acting()                 # what the actors' half (acting.py) needs of it

Legend: B batch, F features, D action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headrace.algorithms import networks
from headrace.algorithms.acting import LOG_STD_RANGE
from headrace.algorithms.acting_inputs import laid_out
from headrace.algorithms.base import NetworkOptions, Tensors
from headrace.algorithms.distributions import Categorical, Gaussian, MultiCategorical, SquashedGaussian, masked
from headrace.algorithms.networks import Net
from headrace.common.types import Array, Spaces

#: A first policy that hardly prefers anything explores (Andrychowicz et al. 2021, section 3.2).
_HEAD_GAIN = 0.01


class CategoricalNet(nn.Module):
    """``net``: [B, F] -> logits."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensors) -> Categorical:
        return Categorical(masked(self.net(x).float(), x))

    def acting(self) -> dict[str, Array]:
        return self.net.acting("pi")


class MultiCategoricalNet(nn.Module):
    """``net``: [B, F] -> logits [B, sum of choices], component by component."""

    place: Tensor
    there: Tensor

    def __init__(self, net: Net, choices: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        for name, table in zip(("place", "there"), laid_out(choices), strict=True):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def forward(self, x: Tensors) -> MultiCategorical:
        return MultiCategorical(masked(self.net(x).float(), x), self.place, self.there)

    def acting(self) -> dict[str, Array]:
        return self.net.acting("pi")


class GaussianNet(nn.Module):
    """``net``: [B, F] -> means; the logarithms of the standard deviations [D] do not depend on the observation."""

    def __init__(self, net: Net, dimensions: int) -> None:
        super().__init__()
        self.net, self.log_std = net, nn.Parameter(torch.zeros(dimensions))

    def forward(self, x: Tensors) -> Gaussian:
        return Gaussian(self.net(x).float(), self.log_std)

    def acting(self) -> dict[str, Array]:
        return self.net.acting("pi") | {"log_std": self.log_std.detach().cpu().numpy().copy()}


class SquashedGaussianNet(nn.Module):
    """``net``: [B, F] -> means and logarithms of the standard deviations, [B, 2 D] side by side."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensors) -> SquashedGaussian:
        mean, log_std = self.net(x).float().chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE))

    def acting(self) -> dict[str, Array]:
        return self.net.acting("pi")


class Temperature(nn.Module):
    """alpha [1], the weight of the entropy beside the reward; positive, since its logarithm is what is learnt."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor([alpha]).log())

    def forward(self) -> Tensor:
        return self.log_alpha.exp()


def make(
    options: NetworkOptions, spaces: Spaces, rng: np.random.Generator
) -> CategoricalNet | MultiCategoricalNet | GaussianNet:
    """The policy that ``spaces`` asks for. Raises what :func:`networks.make` raises."""
    net = networks.make(options, spaces, spaces.outputs, rng, _HEAD_GAIN)
    if spaces.discrete:
        return CategoricalNet(net)
    choices = spaces.action.choices
    return MultiCategoricalNet(net, choices) if choices else GaussianNet(net, spaces.action_dim)


def make_squashed(options: NetworkOptions, spaces: Spaces, rng: np.random.Generator) -> SquashedGaussianNet:
    """A squashed Gaussian over the actions of ``spaces``. Raises what :func:`networks.make` raises."""
    return SquashedGaussianNet(networks.make(options, spaces, 2 * spaces.action_dim, rng, _HEAD_GAIN))
