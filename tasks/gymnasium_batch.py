"""Any Gymnasium environment by its id, stepped one after the other in this process.

A plain loop over the environments beats ``gymnasium.vector`` by a quarter on LunarLander (bench/ladder.py, rung 1):
no copies of observations nobody keeps, no info dictionaries merged. Many cores are many actors, not many threads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from headrace.common.errors import UsageError
from headrace.common.types import DTYPES, Array, Spaces
from headrace.tasks.base import StepResult


def make_env(env_id: str, kwargs: dict[str, Any], render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """One environment. Training never passes a render mode: with one set, LunarLander keeps a particle per engine burst
    until ``render()`` is called, and steps get slower and slower."""
    spec = copy.deepcopy(_find_spec(env_id))
    spec.order_enforce = False  # our loops reset before they step; one Python call a step saved
    if render_mode is not None:
        kwargs = {**kwargs, "render_mode": render_mode}
    try:
        env = gymnasium.make(spec, disable_env_checker=True, **kwargs)
    except (gymnasium.error.Error, TypeError) as error:
        raise UsageError(f"task.env {env_id!r} with task.kwargs {kwargs}: {error}") from error
    if type(env.unwrapped.action_space) is gymnasium.spaces.Discrete:
        env.unwrapped.action_space = _OwnActions(env.action_space.n, start=env.action_space.start)
    return env


class _OwnActions(gymnasium.spaces.Discrete):  # type: ignore[misc]  # Gymnasium is untyped to mypy
    """Environments assert that an action is in their space; Gymnasium's check of an int costs a sixth of a LunarLander
    step. Our policies' actions are ints, so comparing is enough."""

    def contains(self, x: Any) -> bool:
        return bool(self.start <= x < self.start + self.n)


def _find_spec(env_id: str) -> Any:
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        raise UsageError(f"task.env: {error}") from error


def spaces_of(env: gymnasium.Env[Any, Any], env_id: str) -> Spaces:
    """What algorithms must know of the environment. Raises :class:`UsageError` for spaces nobody here can serve."""
    obs, action = env.observation_space, env.action_space
    if not isinstance(obs, gymnasium.spaces.Box) or str(obs.dtype) not in DTYPES:
        raise UsageError(f"task.env {env_id!r}: observation space {obs} is not a Box of plain numbers")
    shape, dtype = tuple(int(n) for n in obs.shape), str(obs.dtype)
    dtype = "float32" if dtype == "float64" else dtype  # nobody learns from the other 29 bits
    if isinstance(action, gymnasium.spaces.Discrete):
        return Spaces(shape, dtype, n_actions=int(action.n))
    if isinstance(action, gymnasium.spaces.Box) and len(action.shape) == 1 and action.is_bounded():
        return Spaces(shape, dtype, action_dim=int(action.shape[0]))
    raise UsageError(
        f"task.env {env_id!r}: action space {action} is neither Discrete nor a bounded Box of one dimension"
    )


class GymnasiumBatch:
    """B environments behind :class:`EnvBatch`, reset in the same step."""

    def __init__(self, env_id: str, n: int, kwargs: dict[str, Any]) -> None:
        self._take([make_env(env_id, kwargs) for _ in range(n)], env_id)

    @classmethod
    def of(cls, envs: list[gymnasium.Env[Any, Any]], env_id: str) -> GymnasiumBatch:
        """Around environments made elsewhere (one that renders, say)."""
        batch = cls.__new__(cls)
        batch._take(envs, env_id)
        return batch

    def _take(self, envs: list[gymnasium.Env[Any, Any]], env_id: str) -> None:
        self.envs, self.spaces = envs, spaces_of(envs[0], env_id)
        action = self.envs[0].action_space
        self._start = int(action.start) if isinstance(action, gymnasium.spaces.Discrete) else 0
        if isinstance(action, gymnasium.spaces.Box):
            self._low, self._half_range = action.low, (action.high - action.low) / 2

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self, seeds: Sequence[int]) -> Array:
        return self._stack([env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)])

    def step(self, action: Array) -> StepResult:
        n = len(self.envs)
        obs, reward = np.empty((n, *self.spaces.obs_shape), self.spaces.obs_dtype), np.empty(n, np.float32)
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        final: list[Any] = []
        for i, env_action in enumerate(self._env_actions(action)):
            shown, reward[i], ended, cut, _ = self.envs[i].step(env_action)
            if ended or cut:
                terminated[i], truncated[i] = ended, cut and not ended
                final.append(shown)
                shown, _ = self.envs[i].reset()
            obs[i] = shown
        return StepResult(obs, reward, terminated, truncated, self._stack(final) if final else None)

    def step_some(self, action: Array, columns: Sequence[int]) -> list[tuple[Array, float, bool, bool]]:
        """Step only ``columns`` and reset nothing: (obs, reward, terminated, truncated) each, for whole episodes."""
        actions = self._env_actions(action)
        results = []
        for i in columns:
            shown, reward, ended, cut, _ = self.envs[i].step(actions[i])
            results.append((shown, float(reward), bool(ended), bool(cut and not ended)))
        return results

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _env_actions(self, action: Array) -> Any:
        if self.spaces.discrete:
            return (action + self._start).tolist() if self._start else action.tolist()
        return self._low + (np.clip(action, -1.0, 1.0) + 1.0) * self._half_range

    def _stack(self, observations: list[Any]) -> Array:
        return np.asarray(observations, dtype=self.spaces.obs_dtype)
