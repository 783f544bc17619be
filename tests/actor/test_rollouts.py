"""What a fragment holds, checked on an environment whose every number is known."""

import numpy as np
import pytest
from prometheus_client import generate_latest

from headrace.actor.env_rollout import EnvRollout
from headrace.actor.group_rollout import GroupRollout
from headrace.actor.rollout_worker import Identity, RolloutWorker, Timings
from headrace.algorithms import grpo, ppo
from headrace.algorithms.base import PolicyOutput
from headrace.common.errors import Closed
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits
from headrace.common.transport.memory import Memory
from headrace.common.types import Lease, Trajectory, Weights
from headrace.common.validation import Expected, validate
from headrace.tasks.gymnasium_batch import GymnasiumBatch
from tests.tasks.test_batches import Counting


class Fixed:
    """A policy that always takes action 0; ``loaded`` records the versions it was given."""

    def __init__(self):
        self.loaded = []

    def load(self, weights):
        self.loaded.append(weights.version)

    def act(self, obs, state, rng, explore):
        n = len(obs)
        return PolicyOutput(np.zeros(n, np.int64), {"behaviour_logp": np.full(n, -1.0, np.float32)})


def rollout(steps=4):
    batch = GymnasiumBatch.of([Counting(3, True), Counting(2, False)], "Counting")
    schema = ppo.schema(ppo.Config(), batch.spaces)
    return EnvRollout(batch, Fixed(), schema, steps, [1, 2], np.random.default_rng(0)), schema


def test_a_fragment_row_by_row_and_episodes_that_cross_fragments():
    collecting, _ = rollout()
    first = collecting.collect(0, Timings()).arrays
    assert first["obs"][:, :, 0].T.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 0]]
    assert first["terminated"].T.tolist() == [[False, False, True, False], [False] * 4]
    assert first["truncated"].T.tolist() == [[False] * 4, [False, True, False, True]]
    assert first["final_obs"][:, 0].tolist() == [2.0, 3.0, 2.0]  # (t=1, b=1), (t=2, b=0), (t=3, b=1)
    second = collecting.collect(1, Timings())
    assert second.arrays["obs"][0, :, 0].tolist() == [1, 0]  # goes on where the first stopped
    assert [(e.ret, e.length) for e in second.episodes] == [(3.0, 3), (2.0, 2), (2.0, 2)]


class Leases:
    """A subscriber that hands out what it was given; an empty list means no lease."""

    def __init__(self, leases):
        self.leases, self.asked = list(leases), []

    def next(self, have_version, timeout_s):
        self.asked.append(have_version)
        return self.leases.pop(0) if self.leases else None

    def delivered(self):
        self.asked.append("delivered")

    def close(self):
        pass


def test_a_worker_stamps_versions_leases_and_sequence_numbers():
    collecting, schema = rollout()
    carrier, metrics = Memory(Limits()), Metrics("actor")
    weights = [Weights("run", 3, version, {}) for version in (7, 9)]

    def check(trajectory):
        validate(trajectory, Expected(schema, "run"))

    leases = Leases([Lease(10, 3, weights[0]), Lease(11, 3, None), Lease(14, 3, weights[1])])
    who = Identity("run", 5, 99, "task", schema.hash)
    worker = RolloutWorker(who, collecting, leases, carrier, metrics, check=check)
    assert [worker.step(0.0) for _ in range(4)] == [True, True, True, False]
    assert leases.asked == [-1, "delivered", 7, "delivered", 7, "delivered", 9]
    got: list[Trajectory] = [carrier.get(0.0).trajectory for _ in range(3)]
    assert [(t.policy_version, t.lease, t.seq) for t in got] == [(7, 10, 0), (7, 11, 1), (9, 14, 2)]
    for trajectory in got:
        validate(trajectory, Expected(schema, "run"))
    assert metrics.value("actor_fragments_total") == 3
    assert metrics.value("actor_env_steps_total") == 24
    shown = generate_latest(metrics.registry).decode()
    # Episodes of 3 steps (environment 0) and of 2 (environment 1), in 12 steps of each.
    assert "headrace_actor_episode_steps_count 10.0\n" in shown
    assert "headrace_actor_episode_steps_sum 24.0\n" in shown
    assert "headrace_actor_lease_wait_seconds_count 3.0\n" in shown
    carrier.close()
    leases.leases.append(Lease(15, 3, None))
    with pytest.raises(Closed):
        worker.step(0.0)


def test_a_group_starts_from_one_seed_and_pads_what_ended():
    envs = GymnasiumBatch("CartPole-v1", 4, {})
    config = grpo.Config(group_size=4)
    schema = grpo.schema(config, envs.spaces)
    policy = grpo.policy(config, envs.spaces)
    learner = grpo.GRPO(config, envs.spaces, seed=0)
    policy.load(Weights("run", 1, 0, *learner.weights()))
    group = GroupRollout(envs, policy, schema, 50, seed=1, rng=np.random.default_rng(0))
    fragment = group.collect(3, Timings())
    arrays, valid = fragment.arrays, fragment.arrays["valid"]
    assert (arrays["obs"][0] == arrays["obs"][0, 0]).all()
    lengths = [e.length for e in fragment.episodes]
    assert lengths == valid.sum(axis=0).tolist()
    assert max(lengths) == fragment.T <= 50
    for column, length in enumerate(lengths):
        assert valid[:length, column].all()
        assert not valid[length:, column].any()
    again = group.collect(3, Timings()).arrays["obs"][0, 0]
    other = group.collect(4, Timings()).arrays["obs"][0, 0]
    np.testing.assert_array_equal(again, arrays["obs"][0, 0])
    assert not np.array_equal(other, again)
