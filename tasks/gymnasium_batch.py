"""Any Gymnasium environment by its id, stepped one after the other in this process.

A plain loop over the environments beats ``gymnasium.vector`` by a quarter on LunarLander (bench/ladder.py, rung 1):
no copies of observations nobody keeps, no info dictionaries merged. Many cores are many actors, not many threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy import ndarray

from headrace.common.errors import EnvironmentFailed
from headrace.common.own_code import cause
from headrace.common.types import Array
from headrace.tasks.base import Call, Own, StepResult
from headrace.tasks.gymnasium_env import make_env, spaces_of
from headrace.tasks.shaping import shaped
from headrace.tasks.wrappers import Wrapping, own_returns


class _Unfit(Exception):
    """An environment did not raise, but what it showed is of no use."""


class _Called:
    """Calls into environments of others stand inside: whatever they raise becomes an :class:`EnvironmentFailed` that
    names the one that was called. (A class, because a generator would cost a twentieth of a CartPole step.)"""

    def __init__(self, env_id: str, call: Call) -> None:
        self._env_id, self._call = env_id, call

    def __enter__(self) -> None:
        self._call.count += 1

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        index, self._call.index = self._call.index, -1
        if isinstance(error, (Exception, SystemExit)):
            what = str(error) if isinstance(error, _Unfit) else f"raised {cause(error)}"
            raise EnvironmentFailed(f"environment {self._env_id!r} number {index} {what}") from error


class GymnasiumBatch:
    """B environments behind :class:`EnvBatch`, reset in the same step."""

    def __init__(self, env_id: str, n: int, kwargs: dict[str, Any], wrappers: Sequence[Wrapping] = ()) -> None:
        self._take([make_env(env_id, kwargs, wrappers=wrappers) for _ in range(n)], env_id)

    @classmethod
    def of(cls, envs: list[gymnasium.Env[Any, Any]], env_id: str) -> GymnasiumBatch:
        """Around environments made elsewhere (one that renders, say)."""
        batch = cls.__new__(cls)
        batch._take(envs, env_id)
        return batch

    def _take(self, envs: list[gymnasium.Env[Any, Any]], env_id: str) -> None:
        self.env_id, self.envs, self.spaces, self.call = env_id, envs, spaces_of(envs[0], env_id), Call()
        self._called = _Called(env_id, self.call)
        self._shaped = [shaping for env in envs if (shaping := shaped(env)) is not None]
        self._owns = [own for env in envs if (own := own_returns(env)) is not None]
        self._dtype = np.dtype(self.spaces.obs_dtype)  # the one seen last that was fit
        action = self.envs[0].action_space
        self._start = int(action.start) if isinstance(action, gymnasium.spaces.Discrete) else 0
        if isinstance(action, gymnasium.spaces.Box):
            self._low, self._half_range = action.low, (action.high - action.low) / 2

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self, seeds: Sequence[int]) -> Array:
        first = []
        with self._called:
            for i, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
                self.call.index = i
                first.append(self._fit(env.reset(seed=seed)[0]))
        for own in self._owns:
            own.take_reset()
        return self._stack(first)

    def step(self, action: Array) -> StepResult:
        n, shape, dtype, call = len(self.envs), self.spaces.obs_shape, self._dtype, self.call
        obs, reward = np.empty((n, *shape), self.spaces.obs_dtype), np.empty(n, np.float32)
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        final: list[Any] = []
        owns, own_reward = self._owns, np.zeros(n if self._owns else 0)
        with self._called:
            for i, env_action in enumerate(self._env_actions(action)):
                call.index = i
                shown, reward[i], ended, cut, _ = self.envs[i].step(env_action)
                if owns:
                    own_reward[i] = owns[i].take_reward()
                if ended or cut:
                    terminated[i], truncated[i] = ended, cut and not ended
                    final.append(self._fit(shown))
                    shown, _ = self.envs[i].reset()
                if type(shown) is not ndarray or shown.shape != shape or shown.dtype is not dtype:
                    shown = self._fit(shown)  # not called at every step: it would cost
                obs[i] = shown
        own = Own(own_reward, np.array([own.take_reset() for own in owns])) if owns else None
        return StepResult(obs, reward, terminated, truncated, self._stack(final) if final else None, own=own)

    def step_some(self, action: Array, columns: Sequence[int]) -> list[tuple[Array, float, bool, bool]]:
        """Step only ``columns`` and reset nothing: (obs, reward, terminated, truncated) each, for whole episodes."""
        actions, shape, dtype = self._env_actions(action), self.spaces.obs_shape, self._dtype
        results = []
        with self._called:
            for i in columns:
                self.call.index = i
                shown, reward, ended, cut, _ = self.envs[i].step(actions[i])
                if type(shown) is not ndarray or shown.shape != shape or shown.dtype is not dtype:
                    shown = self._fit(shown)
                results.append((shown, float(reward), bool(ended), bool(cut and not ended)))
        return results

    def own_reward(self, column: int, reward: float) -> float:
        """What the environment itself rewarded in the step of ``step_some`` that returned ``reward``."""
        return self._owns[column].take_reward() if self._owns else reward

    def goes_on(self, column: int) -> Array | None:
        """After the end of an episode: the observation in which the environment's own episode goes on, if it was a
        wrapper that ended it."""
        if not self._owns:
            return None
        with self._called:
            self.call.index = column
            shown = self._fit(self.envs[column].reset()[0])
        return None if self._owns[column].take_reset() else shown

    def reward_terms(self) -> Mapping[str, float]:
        sums: Counter[str] = Counter()
        steps = 0
        for shaping in self._shaped:
            terms, taken = shaping.take_terms()
            sums.update(terms)
            steps += taken
        return {name: total / steps for name, total in sums.items()} if steps else {}

    def close(self) -> None:
        with self._called:
            for i, env in enumerate(self.envs):
                self.call.index = i
                env.close()

    def _fit(self, shown: Any) -> Array:
        """An observation as an array, if it has the declared shape and a dtype that can become the declared one."""
        obs, shape, dtype = np.asarray(shown), self.spaces.obs_shape, self.spaces.obs_dtype
        if obs.shape != shape:
            raise _Unfit(f"showed an observation of shape {obs.shape}; its observation space says {shape}")
        if not np.can_cast(obs.dtype, dtype, "same_kind"):
            raise _Unfit(f"showed an observation of {obs.dtype}, which is no {dtype}")
        self._dtype = obs.dtype
        return obs

    def _env_actions(self, action: Array) -> Any:
        if self.spaces.discrete:
            return (action + self._start).tolist() if self._start else action.tolist()
        return self._low + (np.clip(action, -1.0, 1.0) + 1.0) * self._half_range

    def _stack(self, observations: list[Any]) -> Array:
        return np.asarray(observations, dtype=self.spaces.obs_dtype)
