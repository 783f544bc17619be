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
from headrace.common.named import alone, each, put
from headrace.common.own_code import cause
from headrace.common.types import MASK, Array, Field, Obs
from headrace.tasks.actions import to_env
from headrace.tasks.base import Call, Own, StepResult
from headrace.tasks.gymnasium_env import make_env
from headrace.tasks.shaping import shaped
from headrace.tasks.shown import Reader, Unfit
from headrace.tasks.spaces import spaces_of
from headrace.tasks.wrappers import Wrapping, own_returns


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
            what = str(error) if isinstance(error, Unfit) else f"raised {cause(error)}"
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
        self.env_id, self.envs, self.call = env_id, envs, Call()
        self._called = _Called(env_id, self.call)
        self._shaped = [shaping for env in envs if (shaping := shaped(env)) is not None]
        self._owns = [own for env in envs if (own := own_returns(env)) is not None]
        self._env_actions = to_env(envs[0].action_space)
        self._begun = False
        self._look({})

    def _look(self, info: Any) -> None:
        """What is shown is known but for one thing: whether masks come with ``info``, that of a first reset."""
        self.spaces = spaces_of(self.envs[0], self.env_id, isinstance(info, Mapping) and MASK in info)
        self._read = Reader(self.envs[0], self.spaces)
        one = alone(self.spaces.obs)
        self._kinds = each(lambda field: (field.shape, np.dtype(field.dtype)), one)
        # Where it is one Box: what an observation that is fit looks like. The dtype is the one seen last.
        is_box = isinstance(one, Field) and not one.choices
        self._shape: Any = self._kinds[0] if is_box else None
        self._dtype: Any = self._kinds[1] if is_box else None

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self, seeds: Sequence[int]) -> Obs:
        first = []
        with self._called:
            for i, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
                self.call.index = i
                shown, info = env.reset(seed=seed)
                if not self._begun:
                    self._begun = True
                    self._look(info)
                first.append(self._fit(shown, info, i))
        for own in self._owns:
            own.take_reset()
        return self.stack(first)

    def step(self, action: Array) -> StepResult:
        n, shape, dtype, call = len(self.envs), self._shape, self._dtype, self.call
        obs, reward = each(lambda kind: np.empty((n, *kind[0]), kind[1]), self._kinds), np.empty(n, np.float32)
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        final: list[Any] = []
        owns, own_reward = self._owns, np.zeros(n if self._owns else 0)
        with self._called:
            for i, env_action in enumerate(self._env_actions(action)):
                call.index = i
                shown, reward[i], ended, cut, info = self.envs[i].step(env_action)
                if owns:
                    own_reward[i] = owns[i].take_reward()
                if ended or cut:
                    terminated[i], truncated[i] = ended, cut and not ended
                    final.append(self._fit(shown, info, i, ended))
                    shown, info = self.envs[i].reset()
                if type(shown) is ndarray and shown.shape == shape and shown.dtype is dtype:
                    obs[i] = shown
                else:  # not at every step: it would cost
                    put(obs, i, self._fit(shown, info, i))
        own = Own(own_reward, np.array([own.take_reset() for own in owns])) if owns else None
        return StepResult(obs, reward, terminated, truncated, self.stack(final) if final else None, own=own)

    def step_some(self, action: Array, columns: Sequence[int]) -> list[tuple[Obs, float, bool, bool]]:
        """Step only ``columns`` and reset nothing: (obs, reward, terminated, truncated) each, for whole episodes."""
        actions, shape, dtype = self._env_actions(action), self._shape, self._dtype
        results = []
        with self._called:
            for i in columns:
                self.call.index = i
                shown, reward, ended, cut, info = self.envs[i].step(actions[i])
                if type(shown) is not ndarray or shown.shape != shape or shown.dtype is not dtype:
                    shown = self._fit(shown, info, i, ended)
                results.append((shown, float(reward), bool(ended), bool(cut and not ended)))
        return results

    def stack(self, observations: list[Any]) -> Obs:
        """Observations of one environment each, as a batch."""
        made: Obs = each(lambda kind, *parts: np.asarray(parts, kind[1]), self._kinds, *observations)
        return made

    def own_reward(self, column: int, reward: float) -> float:
        """What the environment itself rewarded in the step of ``step_some`` that returned ``reward``."""
        return self._owns[column].take_reward() if self._owns else reward

    def goes_on(self, column: int) -> Obs | None:
        """After the end of an episode: the observation in which the environment's own episode goes on, if it was a
        wrapper that ended it."""
        if not self._owns:
            return None
        with self._called:
            self.call.index = column
            shown, info = self.envs[column].reset()
            after = self._fit(shown, info, column)
        return None if self._owns[column].take_reset() else after

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

    def _fit(self, shown: Any, info: Any, index: int, over: bool = False) -> Obs:
        """An observation as it is declared, or as can become that. ``over``: none follows it."""
        fit = self._read(shown, info, self.envs[index], over)
        if self._shape is not None and isinstance(fit, ndarray):
            self._dtype = fit.dtype
        return fit
