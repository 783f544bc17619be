"""DQN: Q-learning from replay (Mnih et al. 2015), with the parts that have proved their worth.

    y    = R + gamma^n Q_target(s', argmax_a Q(s', a))       double Q-learning (van Hasselt et al. 2016, eq. 4)
    loss = mean(w huber(Q(s, a) - y))                        w: importance weights of prioritised replay
    target <- target + tau (online - target)                 after every gradient step (Polyak averaging)

R, gamma^n and w come with the minibatch (learner/replay.py). Optional: the dueling head (Wang et al. 2016, eq. 9).
Epsilon is a scalar beside the weights, so the learner's progress drives the exploration of every actor.

Legend: F features, A actions, M minibatch.
Importing this file costs no torch: an actor reads ``Config``, ``schema`` and ``policy`` from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le
from pydantic.dataclasses import dataclass

from headrace.algorithms import frame_stack
from headrace.algorithms.acting import EpsilonGreedyPolicy, acting_net, env_schema
from headrace.algorithms.base import (
    Batch,
    Count,
    FrameOptions,
    NotNegative,
    Policy,
    Positive,
    Replay,
    Result,
    Share,
    State,
)
from headrace.algorithms.device import CPU, Device
from headrace.algorithms.minibatches import linear
from headrace.algorithms.saving import Stateful
from headrace.common.errors import UsageError
from headrace.common.seeding import stream
from headrace.common.types import Array, Schema, Spaces

if TYPE_CHECKING:
    import torch

    from headrace.algorithms import networks
    from headrace.algorithms.base import Tensors

#: What a gradient step takes, and the figures it gives.
_TRANSITION = ("obs", "next_obs", "action", "reward", "discount", "weight")
_FIGURES = ("loss", "td_error", "q", "grad_norm")


@dataclass(frozen=True)
class Config(FrameOptions):
    """Hyper-parameters of DQN. The defaults learn CartPole."""

    fragments: Count = 1
    """Fragments between two rounds of gradient steps; weights are published after each round."""
    minibatch: Count = 128
    """Transitions per gradient step."""
    samples_per_insert: NotNegative = 32.0
    """How many times a transition is drawn on average: minibatch / samples_per_insert new ones per gradient step."""
    capacity: Count = 100_000
    """Transitions the replay buffer holds."""
    min_size: Annotated[int, Ge(0)] = 1000
    """Transitions to collect before the first gradient step."""
    learning_rate: Share = 1e-3
    """Adam's step size at the start."""
    learning_rate_end: Share = 0.0
    """Adam's step size at the end of the run, reached linearly."""
    gamma: Share = 0.99
    """Discount per environment step."""
    n_step: Annotated[int, Ge(1), Le(1000)] = 1
    """Rewards summed before the target network takes over."""
    double: bool = True
    """The online network chooses the next action and the target network values it; else the target does both."""
    dueling: bool = False
    """The head gives the state's value and the actions' advantages, joined to Q."""
    tau: Share = 0.005
    """Share of the online network that the target network takes over at each gradient step."""
    max_grad_norm: Positive = 10.0
    """Gradients are scaled down to this norm."""
    epsilon_start: Share = 1.0
    """Share of random actions at the start."""
    epsilon_end: Share = 0.05
    """Share of random actions from ``epsilon_fraction`` of the run on."""
    epsilon_fraction: Share = 0.2
    """Part of the run over which epsilon falls, linearly."""
    priority_alpha: Share = 0.0
    """0: uniform replay. Above 0: transitions are drawn in proportion to |TD error|^alpha."""
    priority_beta: Share = 0.4
    """Importance exponent of prioritised replay at the start; rises to 1 over ``beta_steps``."""
    beta_steps: Count = 100_000
    """Inserted transitions after which the importance exponent is 1."""

    @property
    def experience(self) -> Replay:
        return Replay(
            capacity=self.capacity,
            batch=self.minibatch,
            samples_per_insert=self.samples_per_insert,
            fragments=self.fragments,
            min_size=self.min_size,
            n_step=self.n_step,
            gamma=self.gamma,
            priority_alpha=self.priority_alpha,
            priority_beta=self.priority_beta,
            beta_steps=self.beta_steps,
            stack=self.frame_stack,
        )

    def epsilon(self, fraction: float) -> float:
        """Share of random actions when ``fraction`` of the run is done."""
        done = 1.0 if fraction >= self.epsilon_fraction else fraction / self.epsilon_fraction
        return self.epsilon_start + (self.epsilon_end - self.epsilon_start) * done


def actions(who: str, spaces: Spaces) -> int:
    """How many actions Q-learning chooses from. Raises :class:`UsageError` for those that ``who`` cannot serve."""
    if not spaces.discrete:
        kind = "MultiDiscrete" if spaces.action.choices else "Box"
        raise UsageError(f"task.env: {who} needs a Discrete action space and this one is a {kind}; PPO takes both")
    return spaces.n_actions


def outputs(config: Config, spaces: Spaces) -> int:
    """Of the Q network. A dueling head has one more row: the value, before the advantages. Raises what
    :func:`actions` raises."""
    return actions("DQN", spaces) + config.dueling


def schema(config: Config, spaces: Spaces) -> Schema:
    """A fragment holds what the environment showed and what was done; nothing about how it was chosen."""
    return env_schema(spaces, {})


def policy(config: Config, spaces: Spaces) -> Policy:
    """The acting half. Raises :class:`UsageError` for spaces DQN cannot serve."""
    net = acting_net("q", config, frame_stack.stacked(spaces, config.frame_stack), outputs(config, spaces))
    greedy = EpsilonGreedyPolicy(net, spaces.n_actions, config.dueling, config.epsilon_start)
    return frame_stack.acting(greedy, spaces, config.frame_stack)


# --- the mathematics -----------------------------------------------------------------------------------------------


def dueling(out: torch.Tensor) -> torch.Tensor:
    """Value and advantages [M, 1 + A] -> Q [M, A]: Q = V + D - mean D (Wang et al. 2016, eq. 9)."""
    return out[:, :1] + out[:, 1:] - out[:, 1:].mean(1, keepdim=True)


def td_target(
    reward: torch.Tensor, discount: torch.Tensor, chooser: torch.Tensor, valuer: torch.Tensor
) -> torch.Tensor:
    """reward + discount valuer[argmax chooser], [M]. ``chooser`` and ``valuer`` are Q of the next state [M, A] by the
    network that picks the action there and by the one that says what it is worth."""
    return reward + discount * valuer.gather(1, chooser.argmax(1, keepdim=True))[:, 0]


# --- the learning half ---------------------------------------------------------------------------------------------


class DQN(Stateful):
    """The online and the target network, optimiser and normaliser; ``update`` is one gradient step."""

    def __init__(self, config: Config, spaces: Spaces, seed: int, device: Device = CPU) -> None:
        from headrace.algorithms import networks, normalise, optimise

        self.config, self.experience, self.schema = config, config.experience, schema(config, spaces)
        self.device = device
        spaces = frame_stack.stacked(spaces, config.frame_stack)
        self.q, self.target = (
            networks.make(config, spaces, outputs(config, spaces), stream(seed, "init", "q")).to(device.name)
            for _ in range(2)
        )
        self._online, self._target = optimise.Flat(self.q), optimise.Flat(self.target)
        self.adam = optimise.Adam(self._online)
        self.obs_norm = normalise.make(spaces, config.normalise_obs).to(device.name)
        self._loss, self._step = device.compiled(self._td_loss), device.recorded(self._gradient_step)
        self.progress(0.0)

    def progress(self, fraction: float) -> None:
        self.fraction = fraction
        self._learning_rate = linear(self.config.learning_rate, self.config.learning_rate_end, fraction)

    def update(self, batch: Batch) -> Result:
        """One gradient step; with prioritised replay the priorities are |TD error| [M], else None."""
        obs, next_obs, *rest = (self.device.tensor(batch[name]) for name in _TRANSITION)
        self.adam.advance(self._learning_rate)
        figures, error = self._step(self.obs_norm(obs), self.obs_norm(next_obs), *rest)
        self.obs_norm.update(obs)
        metrics = dict(zip(_FIGURES, figures.tolist(), strict=True)) | {"learning_rate": self._learning_rate}
        return Result(metrics, error.cpu().numpy() if self.config.priority_alpha > 0 else None)

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        return self.q.acting("q") | self.obs_norm.acting(), {"epsilon": self.config.epsilon(self.fraction)}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.progress(self.fraction)

    # --- inside an update ------------------------------------------------------------------------------------------

    def _gradient_step(self, *minibatch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """The figures [4] and |TD error| [M]."""
        import torch

        loss, q, error = self._loss(*minibatch)
        norm = self.adam.minimise(loss, self.config.max_grad_norm)
        self._target.value.lerp_(self._online.value, self.config.tau)
        return torch.stack([loss.detach(), error.mean(), q, norm]), error

    def _td_loss(
        self, x: Tensors, x_next: Tensors, action: torch.Tensor, reward: torch.Tensor,
        discount: torch.Tensor, weight: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """The loss, mean Q(s, a), and |TD error| [M]."""
        import torch

        with torch.no_grad():
            valuer = self._values(self.target, x_next)
            chooser = self._values(self.q, x_next) if self.config.double else valuer
            target = td_target(reward, discount, chooser, valuer)
        q = self._values(self.q, x).gather(1, action[:, None])[:, 0]
        loss = (weight * torch.nn.functional.huber_loss(q, target, reduction="none")).mean()
        return loss, q.detach().mean(), (q.detach() - target).abs()

    def _values(self, net: networks.Net, x: Tensors) -> torch.Tensor:
        """Q of all actions [M, A]; of those that are not allowed, none that an argmax would choose."""
        from headrace.algorithms.distributions import masked

        with self.device.autocast():
            out = net(x)
        out = out.float()
        return masked(dueling(out) if self.config.dueling else out, x)
