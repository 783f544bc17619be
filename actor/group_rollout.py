"""Groups for GRPO: G episodes from the same reset seed, each run to its own end, sent as one fragment.

Episodes end at different times; steps after an episode's end are padding, marked False in ``valid``. The reset seed
comes from the lease number, so which actor collects a group does not change where it starts.
"""

from __future__ import annotations

import time

import numpy as np

from headrace.actor.fitness import require_recorded
from headrace.actor.rollout_worker import Fragment, Timings
from headrace.algorithms.base import Policy
from headrace.common import named
from headrace.common.seeding import reset_seeds
from headrace.common.types import Array, Episode, Schema
from headrace.tasks.gymnasium_batch import GymnasiumBatch


class GroupRollout:
    """Collects one group per call with ``len(envs)`` environments."""

    def __init__(
        self, envs: GymnasiumBatch, policy: Policy, schema: Schema, max_steps: int, seed: int, rng: np.random.Generator
    ) -> None:
        self.policy, self.envs = policy, envs
        self._schema, self._max_steps, self._seed, self._rng = schema, max_steps, seed, rng

    def collect(self, lease: int, timings: Timings) -> Fragment:
        size = len(self.envs)
        began, acting_s = time.perf_counter(), 0.0
        obs = self.envs.reset(reset_seeds(self._seed, "group", lease, n=1) * size)
        alive, state = np.arange(size), None
        rows: list[dict[str, Array]] = []
        returns = np.zeros(size, np.float64)
        while len(alive) and len(rows) < self._max_steps:
            acting = time.perf_counter()
            here = named.rows(obs, alive)
            output = self.policy.act(here, state, self._rng, explore=True)
            acting_s += time.perf_counter() - acting
            if not rows:
                require_recorded(output.extras, self._schema)
            row = self._empty_row(size)
            row["action"][alive], row["valid"][alive] = output.action, True
            for name, extra in {**named.spread("obs", here), **output.extras}.items():
                row[name][alive] = extra
            for i, (shown, reward, terminated, truncated) in zip(
                alive, self.envs.step_some(row["action"], alive.tolist()), strict=True
            ):
                named.put(obs, i, shown)
                row["reward"][i] = reward
                row["terminated"][i], row["truncated"][i] = terminated, truncated
                returns[i] += self.envs.own_reward(int(i), reward)
            rows.append(row)
            goes_on = ~(row["terminated"] | row["truncated"])[alive]
            alive, state = alive[goes_on], None if output.state is None else output.state[goes_on]
        arrays = {name: np.stack([row[name] for row in rows]) for name in self._schema.fields}
        timings.add("policy", acting_s)
        timings.add("env", time.perf_counter() - began - acting_s)
        return Fragment(len(rows), size, arrays, self._episodes(returns, arrays["valid"].sum(axis=0)))

    def close(self) -> None:
        self.envs.close()

    def _empty_row(self, size: int) -> dict[str, Array]:
        return {name: np.zeros((size, *field.shape), field.dtype) for name, field in self._schema.fields.items()}

    @staticmethod
    def _episodes(returns: Array, lengths: Array) -> tuple[Episode, ...]:
        return tuple(Episode(float(r), int(n)) for r, n in zip(returns, lengths, strict=True))
