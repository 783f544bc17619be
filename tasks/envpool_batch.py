"""Environments of EnvPool (C++), where it has the id: two to three times the steps of Gymnasium on one thread.

EnvPool spends a step on each reset: the step after an episode's end ignores its action and shows the first observation
of the next episode. Such steps are marked invalid, so that nobody trains on them or counts them.

Of an Atari game it says, beside the clipped reward and the end of a life, what the game itself said (``own``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.common.errors import EnvironmentFailed, UsageError
from headrace.common.own_code import cause
from headrace.common.types import Array
from headrace.tasks.actions import to_env
from headrace.tasks.base import Call, Own, StepResult
from headrace.tasks.spaces import spaces_of


class EnvPoolBatch:
    """B environments behind :class:`EnvBatch`, with ``valid`` marks. Seeds are taken at construction (its rule)."""

    def __init__(self, env_id: str, n: int, kwargs: dict[str, Any], seed: int) -> None:
        try:
            import envpool
        except ImportError as error:
            raise UsageError("task.backend = 'envpool': not installed; pip install 'headrace[envpool]'") from error
        if env_id not in envpool.list_all_envs():
            raise UsageError(f"task.env {env_id!r}: EnvPool does not have it; use task.backend = 'gymnasium'")
        try:
            self.env = envpool.make_gymnasium(env_id, num_envs=n, num_threads=1, seed=seed % 2**31, **kwargs)
        except Exception as error:
            raise UsageError(f"task.env {env_id!r} with task.kwargs {kwargs} cannot be made: {cause(error)}") from error
        self.spaces = replace(spaces_of(self.env, env_id), marks_invalid=True)
        if list(self.spaces.obs) != [""]:
            raise UsageError(f"task.env {env_id!r}: of EnvPool's environments those with one observation are served; "
                             "use task.backend = 'gymnasium'")  # fmt: skip
        self._one_frame = kwargs.get("stack_num") == 1  # EnvPool's [1, H, W] is Gymnasium's [H, W]
        if self._one_frame:
            frame = replace(self.spaces.obs[""], shape=self.spaces.obs_shape[1:])
            self.spaces = replace(self.spaces, obs={"": frame})
        self.env_id, self.call, self._n = env_id, Call(), n
        self._resetting = np.zeros(n, np.bool_)
        self._env_actions = to_env(self.env.action_space)

    def __len__(self) -> int:
        return self._n

    def reset(self, seeds: Sequence[int]) -> Array:
        self._resetting[:] = False
        return self._cast(self._called(self.env.reset)[0])

    def step(self, action: Array) -> StepResult:
        taken = action if self.spaces.discrete else self._env_actions(action)
        shown, reward, terminated, truncated, info = self._called(self.env.step, taken)
        own = _own(info, truncated)
        obs, valid = self._cast(shown), ~self._resetting
        terminated, truncated = terminated & valid, truncated & ~terminated & valid
        self._resetting = terminated | truncated
        final = obs[self._resetting] if self._resetting.any() else None
        return StepResult(obs, reward.astype(np.float32), terminated, truncated, final, valid, own)

    def reward_terms(self) -> Mapping[str, float]:
        return {}

    def close(self) -> None:
        self.env.close()

    def _called(self, call: Any, *arguments: Any) -> Any:
        """A call into EnvPool, which steps all environments at once: number 0 stands for any of them."""
        self.call.count, self.call.index = self.call.count + 1, 0
        try:
            return call(*arguments)
        except Exception as error:
            raise EnvironmentFailed(f"environments {self.env_id!r} of EnvPool raised {cause(error)}") from error
        finally:
            self.call.index = -1

    def _cast(self, obs: Any) -> Array:
        return np.asarray(obs[:, 0] if self._one_frame else obs, dtype=self.spaces.obs_dtype)


def _own(info: Mapping[str, Any], truncated: Array) -> Own | None:
    """What a game says beneath clipped rewards and lives; None of everything that is no Atari game."""
    if "lives" not in info:
        return None
    return Own(info["reward"].astype(np.float64), info["terminated"].astype(np.bool_) | truncated)
