"""Fragments of fixed length: T steps in B environments, one batched forward a step; episodes run on across them, and
so does what the policy remembers of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from headrace.actor.fitness import require_recorded, require_sane
from headrace.actor.rollout_worker import Fragment, Timings
from headrace.algorithms.base import Policy
from headrace.common import named
from headrace.common.errors import EnvironmentFailed
from headrace.common.types import Array, Episode, Layout, Obs, Schema
from headrace.tasks import EnvBatch
from headrace.tasks.base import StepResult


class EnvRollout:
    """Keeps the environments between fragments. They are reset when the first fragment is begun."""

    def __init__(
        self,
        envs: EnvBatch,
        policy: Policy,
        schema: Schema,
        steps: int,
        reset_seeds: Sequence[int],
        rng: np.random.Generator,
    ) -> None:
        self.policy, self.envs = policy, envs
        self._schema, self._steps, self._reset_seeds, self._rng = schema, steps, reset_seeds, rng
        self._obs: Obs | None = None
        self._state: Array | None = None
        self._returns = np.zeros(len(envs), np.float64)
        self._lengths = np.zeros(len(envs), np.int64)

    def collect(self, lease: int, timings: Timings) -> Fragment:
        n, arrays = len(self.envs), self._allocate()
        finals: list[Obs] = []
        episodes: list[Episode] = []
        acting_s, began = 0.0, time.perf_counter()
        if self._obs is None:
            self._obs = self.envs.reset(self._reset_seeds)
        shown = named.gathered(arrays, "obs")
        if "state" in arrays:
            arrays["state"][:] = 0 if self._state is None else self._state
        for t in range(self._steps):
            acting = time.perf_counter()
            output = self.policy.act(self._obs, self._state, self._rng, explore=True)
            acting_s += time.perf_counter() - acting
            if t == 0:
                require_recorded(output.extras, self._schema)
            try:
                result = self.envs.step(output.action)
            except EnvironmentFailed:
                # What it showed before may be the cause: a policy that is shown NaN takes NaN as its action.
                before = named.spread("obs", named.rows(self._obs, None))
                require_sane({**before, "reward": arrays["reward"][:t]}, self.envs.env_id)
                raise
            named.put(shown, t, self._obs)
            arrays["action"][t], arrays["reward"][t] = output.action, result.reward
            arrays["terminated"][t], arrays["truncated"][t] = result.terminated, result.truncated
            for name, extra in output.extras.items():
                arrays[name][t] = extra
            if result.valid is not None:
                arrays["valid"][t] = result.valid
            self._returns += result.reward if result.own is None else result.own.reward
            self._lengths += 1 if result.valid is None else result.valid
            if result.final_obs is not None:
                finals.append(result.final_obs)
                episodes += self._finish(result.own.ended if result.own else result.terminated | result.truncated)
            self._obs, self._state = result.obs, output.state
            if self._state is not None:
                self._state[_begins(result)] = 0
        named.put(shown, self._steps, self._obs)
        arrays |= named.spread("final_obs", named.each(_concatenated, *finals)) if finals else self._no_finals()
        timings.add("policy", acting_s)
        timings.add("env", time.perf_counter() - began - acting_s)
        return Fragment(self._steps, n, arrays, tuple(episodes))

    def close(self) -> None:
        self.envs.close()

    def _finish(self, ended: Array) -> list[Episode]:
        columns = np.nonzero(ended)[0]
        episodes = [Episode(float(self._returns[i]), int(self._lengths[i])) for i in columns]
        self._returns[columns], self._lengths[columns] = 0.0, 0
        return episodes

    def _allocate(self) -> dict[str, Array]:
        """Fresh arrays for every fragment: what was put belongs to whoever got it."""
        T, B = self._steps, len(self.envs)
        lead = {Layout.STEP: (T, B), Layout.CHAIN: (T + 1, B), Layout.START: (B,)}
        return {
            name: np.empty((*lead[field.layout], *field.shape), field.dtype)
            for name, field in self._schema.fields.items()
            if field.layout is not Layout.FINAL
        }

    def _no_finals(self) -> dict[str, Array]:
        fields = {name: field for name, field in self._schema.fields.items() if named.is_of("final_obs", name)}
        return {name: np.empty((0, *field.shape), field.dtype) for name, field in fields.items()}


def _concatenated(*parts: Array) -> Array:
    return np.concatenate(parts)


def _begins(result: StepResult) -> Array:
    """The columns in which an episode begins after this step, bool [B]: it ended one, or was spent on a reset."""
    ended: Array = result.terminated | result.truncated
    return ended if result.valid is None else ended | ~result.valid
