"""When an environment fails: the fragment is given up whole, and collected anew under the same lease."""

import numpy as np
import pytest

from headrace.actor.env_rollout import EnvRollout
from headrace.actor.rollout_worker import REBUILDS, Identity, RolloutWorker
from headrace.algorithms import ppo
from headrace.common.errors import EnvironmentFailed, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits
from headrace.common.transport.memory import Memory
from headrace.common.types import Lease, Weights
from headrace.common.validation import Expected, validate
from headrace.tasks.gymnasium_batch import GymnasiumBatch
from tests.actor.test_rollouts import Fixed, Leases
from tests.tasks.bad_envs import Good, Raises


def worker(rebuilt):
    """A worker whose environments raise at once; ``rebuilt()`` are the next ones."""
    policies = []

    def rollout(env):
        batch = GymnasiumBatch.of([env], "X-v0")
        policies.append(Fixed())
        schema = ppo.schema(ppo.Config(), batch.spaces)
        return EnvRollout(batch, policies[-1], schema, 8, [1], np.random.default_rng(0)), schema

    first, schema = rollout(Raises())
    carrier, metrics = Memory(Limits()), Metrics("actor")
    leases = Leases([Lease(10, 1, Weights("run", 1, 7, {})), Lease(11, 1, None)])
    made = RolloutWorker(
        Identity("run", 0, 1, "X-v0", schema.hash), first, leases, carrier, metrics,
        check=lambda t: validate(t, Expected(schema, "run")),
        rebuild=None if rebuilt is None else lambda: rollout(rebuilt())[0],
    )  # fmt: skip
    return made, carrier, metrics, policies


def test_the_same_lease_and_the_weights_go_on_in_new_environments(capsys):
    made, carrier, metrics, policies = worker(Good)
    assert made.step(0.0)
    assert made.step(0.0)
    got = [carrier.get(0.0).trajectory for _ in range(2)]
    assert [(t.lease, t.policy_version, t.seq, t.T) for t in got] == [(10, 7, 0, 8), (11, 7, 1, 8)]
    assert metrics.value("actor_env_rebuilds_total") == 1
    assert policies[0].loaded == [7]
    assert policies[1].loaded == [], "the new environments act with the policy that was there"
    assert "worker 0: environment 'X-v0' number 0 raised ArithmeticError: the pole is gone" in capsys.readouterr().err


def test_after_so_many_in_a_row_the_actor_gives_up_and_nothing_was_sent():
    made, carrier, metrics, _ = worker(Raises)
    with pytest.raises(EnvironmentFailed, match="making it anew 3 times did not help"):
        made.step(0.0)
    assert metrics.value("actor_env_rebuilds_total") == REBUILDS
    assert carrier.get(0.0) is None


def test_what_cannot_be_made_again_is_a_failure_not_bad_usage():
    def gone():
        raise UsageError("task.env 'X-v0' cannot be made: OSError: licence server not found")

    with pytest.raises(EnvironmentFailed, match="worker 0: task\\.env 'X-v0' cannot be made"):
        worker(gone)[0].step(0.0)
