"""DQN: Q-learning from replay (Mnih et al. 2015), with the parts that have proved their worth.

    y = R^(n) + gamma^n Q_target(s', argmax_a Q_online(s', a))     double Q-learning, van Hasselt et al. 2016, eq. 4
    loss = mean(w * huber(y - Q_online(s, a)))                     w: importance weights of prioritised replay
    target <- target + tau (online - target)                       after every gradient step (Polyak averaging)

Optional: dueling streams (Wang et al. 2016, eq. 9), n-step returns and prioritised replay (the replay buffer's part).
Epsilon is a scalar beside the weights, so the learner's progress drives every actor's exploration.

Shapes: B minibatch, A actions, D observation features. All tensors are float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.algorithms.acting import NumpyMLP, env_schema, require_vector_obs
from headrace.algorithms.base import Acted, Batch, Replay, Result, Spaces, State
from headrace.common.errors import UsageError
from headrace.common.types import Array, Schema, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers (ReLU). With ``dueling`` the last one is made twice, once in each stream."""
    dueling: bool = False
    """Separate streams for the state's value and the actions' advantages; needs two hidden layers or more."""
    double: bool = True
    """The online network chooses the next action, the target network values it; else the target does both."""
    gamma: float = 0.99
    """Discount per environment step."""
    n_step: int = 1
    """Steps of the n-step return."""
    learning_rate: float = 1e-3
    """Adam's step size at the start."""
    learning_rate_end: float = 1e-3
    """Adam's step size at the end of the run, reached linearly."""
    tau: float = 0.005
    """Share of the online network that the target takes over at each gradient step."""
    max_grad_norm: float = 10.0
    """The gradient is scaled down to this norm."""
    epsilon_start: float = 1.0
    """Share of random actions at the start."""
    epsilon_end: float = 0.05
    """Share of random actions once ``epsilon_fraction`` of the run is done, reached linearly."""
    epsilon_fraction: float = 0.2
    """Part of the run over which epsilon falls."""
    batch: int = 128
    """Transitions in a minibatch."""
    samples_per_insert: float = 32.0
    """How many times a transition is drawn on average; one gradient step per batch / samples_per_insert new ones."""
    fragments: int = 1
    """Fragments between two rounds of gradient steps; weights are published after each round."""
    capacity: int = 100_000
    """Transitions the replay buffer holds."""
    min_size: int = 1000
    """Transitions to collect before the first gradient step."""
    priority_alpha: float = 0.0
    """0: uniform replay. Above 0: prioritised by |TD error|^alpha (0.6 in the paper)."""
    priority_beta: float = 0.4
    """Importance exponent of prioritised replay at the start; rises to 1."""
    beta_steps: int = 100_000
    """Transitions over which the importance exponent rises to 1."""

    def __post_init__(self) -> None:
        bounds: Mapping[str, tuple[bool, str]] = {
            "hidden": (
                min(self.hidden, default=0) >= 1 and len(self.hidden) >= 1 + self.dueling,
                "must be widths >= 1: one or more, two or more with dueling",
            ),
            "gamma": (0 <= self.gamma <= 1, "must be in [0, 1]"),
            "n_step": (self.n_step >= 1, "must be at least 1"),
            "learning_rate": (self.learning_rate > 0, "must be above 0"),
            "learning_rate_end": (self.learning_rate_end >= 0, "must be at least 0"),
            "tau": (0 < self.tau <= 1, "must be in (0, 1]"),
            "max_grad_norm": (self.max_grad_norm > 0, "must be above 0"),
            "epsilon_start": (0 <= self.epsilon_start <= 1, "must be in [0, 1]"),
            "epsilon_end": (0 <= self.epsilon_end <= 1, "must be in [0, 1]"),
            "epsilon_fraction": (0 <= self.epsilon_fraction <= 1, "must be in [0, 1]"),
            "batch": (self.batch >= 1, "must be at least 1"),
            "samples_per_insert": (self.samples_per_insert > 0, "must be above 0"),
            "fragments": (self.fragments >= 1, "must be at least 1"),
            "min_size": (0 <= self.min_size <= self.capacity, f"must be from 0 to capacity ({self.capacity})"),
            "priority_alpha": (self.priority_alpha >= 0, "must be at least 0"),
            "priority_beta": (0 <= self.priority_beta <= 1, "must be in [0, 1]"),
        }
        for name, (good, rule) in bounds.items():
            if not good:
                raise UsageError(f"algorithm.{name} = {getattr(self, name)}: {rule}")

    @property
    def experience(self) -> Replay:
        return Replay(
            capacity=self.capacity,
            batch=self.batch,
            samples_per_insert=self.samples_per_insert,
            fragments=self.fragments,
            min_size=self.min_size,
            n_step=self.n_step,
            gamma=self.gamma,
            priority_alpha=self.priority_alpha,
            priority_beta=self.priority_beta,
            beta_steps=self.beta_steps,
        )

    def epsilon(self, fraction: float) -> float:
        """Share of random actions when ``fraction`` (0 to 1) of the run is done."""
        done = 1.0 if fraction >= self.epsilon_fraction else fraction / self.epsilon_fraction
        return self.epsilon_start + (self.epsilon_end - self.epsilon_start) * done


def layer_shapes(config: Config, spaces: Spaces) -> dict[str, tuple[int, ...]]:
    """Every tensor of the Q network by name: net ``q``, or ``torso``, ``advantage`` and ``value`` when dueling."""
    features = require_vector_obs(spaces, "dqn")
    if not spaces.discrete:
        raise UsageError("task.env: dqn needs a Discrete action space, this environment's is a Box; use ppo")
    widths = (features, *config.hidden)
    nets = {"q": (*widths, spaces.n_actions)}
    if config.dueling:
        nets = {"torso": widths[:-1], "advantage": (*widths[-2:], spaces.n_actions), "value": (*widths[-2:], 1)}
    shapes: dict[str, tuple[int, ...]] = {}
    for net, sizes in nets.items():
        for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
            shapes[f"{net}.{i}.weight"] = (fan_in, fan_out)
            shapes[f"{net}.{i}.bias"] = (fan_out,)
    return shapes


def schema(config: Config, spaces: Spaces) -> Schema:
    return env_schema(spaces, {})


# --- acting ----------------------------------------------------------------------------------------------------------


class EpsilonGreedy:
    """Greedy in Q; while exploring, with probability epsilon a uniformly random action instead."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        self._shapes = layer_shapes(config, spaces)
        self._nets = {net: NumpyMLP(net, "relu") for net in dict.fromkeys(name.split(".")[0] for name in self._shapes)}
        self._n_actions = spaces.n_actions
        self._epsilon = config.epsilon_start

    def load(self, weights: Weights) -> None:
        shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
        if shapes != self._shapes:
            raise UsageError(f"weights of another network: dqn is configured for {self._shapes}, these are {shapes}")
        for net in self._nets.values():
            net.load(weights.tensors)
        self._epsilon = weights.scalars["epsilon"]

    def q_values(self, obs: Array) -> Array:
        """Q of every action [B, A] for observations [B, D]."""
        if "q" in self._nets:
            return self._nets["q"](obs)
        torso = np.maximum(self._nets["torso"](obs), 0)
        advantage = self._nets["advantage"](torso)
        return self._nets["value"](torso) + advantage - advantage.mean(axis=1, keepdims=True)

    def act(self, obs: Array, state: Any, rng: np.random.Generator, explore: bool) -> Acted:
        action = self.q_values(obs).argmax(axis=1)
        if explore:
            random = rng.integers(self._n_actions, size=len(obs))
            action = np.where(rng.random(len(obs)) < self._epsilon, random, action)
        return Acted(action, {})


def policy(config: Config, spaces: Spaces) -> EpsilonGreedy:
    return EpsilonGreedy(config, spaces)


# --- the maths -------------------------------------------------------------------------------------------------------


def mlp(tensors: Mapping[str, Tensor], net: str, x: Tensor) -> Tensor:
    """ReLU network [B, in] -> [B, out], the last layer linear."""
    i = 0
    while f"{net}.{i}.weight" in tensors:
        x = tensors[f"{net}.{i}.bias"].addmm(x.relu() if i else x, tensors[f"{net}.{i}.weight"])
        i += 1
    return x


def q_values(tensors: Mapping[str, Tensor], obs: Tensor) -> Tensor:
    """Q of every action [B, A] for observations [B, D]; the same numbers as :meth:`EpsilonGreedy.q_values`."""
    if "q.0.weight" in tensors:
        return mlp(tensors, "q", obs)
    torso = mlp(tensors, "torso", obs).relu()
    advantage = mlp(tensors, "advantage", torso)
    return mlp(tensors, "value", torso) + advantage - advantage.mean(1, keepdim=True)


def td_target(reward: Tensor, discount: Tensor, choose: Tensor, value: Tensor) -> Tensor:
    """reward + discount * value[argmax choose], [B]. ``choose`` and ``value``: Q of the next state [B, A] by the network
    that chooses its action and by the one that values it (van Hasselt et al. 2016, eq. 4)."""
    return reward + discount * value.gather(1, choose.argmax(1, keepdim=True)).squeeze(1)


def huber(error: Tensor) -> Tensor:
    """Half the square up to 1, linear beyond (Huber 1964, delta = 1)."""
    size = error.abs()
    square = size.clamp(max=1.0)
    return square * (size - 0.5 * square)


# --- learning --------------------------------------------------------------------------------------------------------


class DQN:
    """The learning half. All parameters live in one flat tensor, as do the target's and Adam's moments; the layers are
    views of it. So clipping, Adam and the soft update are one call each, whatever the number of layers."""

    def __init__(self, config: Config, spaces: Spaces, seed: int, device: str = "cpu") -> None:
        import torch

        self.config = config
        self.experience = config.experience
        self.schema = schema(config, spaces)
        self._shapes = layer_shapes(config, spaces)
        self._device = torch.device(device)
        size = sum(int(np.prod(shape)) for shape in self._shapes.values())
        self._online = torch.zeros(size, device=self._device)
        self._tensors = {name: view.requires_grad_() for name, view in self._views(self._online).items()}
        self._initialise(np.random.default_rng(seed))
        self._target = self._online.clone()
        self._target_tensors = self._views(self._target)
        self._adam = torch.optim.Adam([self._online], lr=config.learning_rate, fused=True)
        # Adam makes its state at its first step; made here, it can be saved and restored at any time.
        self._moments = {"exp_avg": torch.zeros_like(self._online), "exp_avg_sq": torch.zeros_like(self._online)}
        self._steps = torch.zeros((), device=self._device)
        self._adam.state[self._online] = {"step": self._steps, **self._moments}
        self._fraction = 0.0

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [int(np.prod(shape)) for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), flat.detach().split(sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def _initialise(self, rng: np.random.Generator) -> None:
        """Uniform within 1 / sqrt(fan in), weights and biases alike. From numpy: the same numbers on every device."""
        import torch

        with torch.no_grad():
            for name, tensor in self._tensors.items():
                bound = self._shapes[name.replace("bias", "weight")][0] ** -0.5
                tensor.copy_(torch.from_numpy(rng.uniform(-bound, bound, self._shapes[name]).astype(np.float32)))

    def update(self, batch: Batch) -> Result:
        """One gradient step on a minibatch of the replay buffer. Priorities are |TD error| [B] where they are asked for."""
        import torch

        arrays = {name: torch.from_numpy(array).to(self._device) for name, array in batch.arrays.items()}
        with torch.no_grad():
            value = q_values(self._target_tensors, arrays["next_obs"].float())
            choose = q_values(self._tensors, arrays["next_obs"].float()) if self.config.double else value
            target = td_target(arrays["reward"], arrays["discount"], choose, value)
        q = q_values(self._tensors, arrays["obs"].float()).gather(1, arrays["action"].unsqueeze(1)).squeeze(1)
        error = target - q
        loss = (arrays["weight"] * huber(error)).mean()
        gradients = torch.autograd.grad(loss, tuple(self._tensors.values()))
        with torch.no_grad():
            gradient = torch.cat([g.reshape(-1) for g in gradients])
            norm = gradient.norm()
            self._online.grad = gradient.mul_((self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
            self._adam.step()
            self._target.lerp_(self._online, self.config.tau)
            size = error.abs()
            loss_, q_mean, td_error, grad_norm = torch.stack([loss, q.mean(), size.mean(), norm]).tolist()
        metrics = {"loss": loss_, "q_mean": q_mean, "td_error": td_error, "grad_norm": grad_norm}
        return Result(metrics, size.cpu().numpy() if self.config.priority_alpha > 0 else None)

    def weights(self) -> tuple[dict[str, Array], dict[str, float]]:
        """The online network, copied, and epsilon."""
        flat = self._online.detach().to("cpu", copy=True)
        tensors = {name: view.numpy() for name, view in self._views(flat).items()}
        return tensors, {"epsilon": self.config.epsilon(self._fraction)}

    def progress(self, fraction: float) -> None:
        self._fraction = fraction
        start, end = self.config.learning_rate, self.config.learning_rate_end
        self._adam.param_groups[0]["lr"] = start + (end - start) * fraction

    # --- checkpoints ---

    def _flats(self) -> dict[str, Tensor]:
        return {"online": self._online, "target": self._target, **self._moments}

    def state(self) -> State:
        tensors = {
            f"{part}/{name}": view.numpy()
            for part, flat in self._flats().items()
            for name, view in self._views(flat.detach().to("cpu", copy=True)).items()
        }
        return State(tensors, {"adam_steps": int(self._steps), "fraction": self._fraction})

    def restore(self, state: State) -> None:
        """Go on from :meth:`state`, bit for bit. Raises :class:`UsageError` for another architecture's."""
        import torch

        wanted = {f"{part}/{name}": shape for part in self._flats() for name, shape in self._shapes.items()}
        shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
        if shapes != wanted:
            odd = sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
            raise UsageError(
                f"the checkpoint is of another network: {odd[0]} is {shapes.get(odd[0])}, not {wanted.get(odd[0])}"
            )
        with torch.no_grad():
            for part, flat in self._flats().items():
                for name, view in self._views(flat).items():
                    view.copy_(torch.tensor(state.tensors[f"{part}/{name}"]))
            self._steps.fill_(state.values["adam_steps"])
        self.progress(float(state.values["fraction"]))
