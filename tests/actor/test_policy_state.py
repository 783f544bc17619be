"""What a policy remembers: carried from step to step and fragment to fragment, forgotten where an episode begins."""

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.actor.env_rollout import EnvRollout
from headrace.actor.group_rollout import GroupRollout
from headrace.actor.rollout_worker import Timings
from headrace.algorithms.acting import env_schema
from headrace.algorithms.base import PolicyOutput
from headrace.common import codec
from headrace.common.errors import Rejected
from headrace.common.types import Field, Layout, Schema, Trajectory
from headrace.common.validation import Expected, validate
from headrace.launch.evaluate import play
from headrace.launch.load import load
from headrace.learner.experience import join_on_policy
from headrace.tasks import make_batch
from headrace.tasks.gymnasium_batch import GymnasiumBatch
from tests.tasks.test_batches import Counting

RECORDED = {"before": Field("float64"), "state": Field("float64", (2,), Layout.START)}


def follow(before, obs):
    """What is remembered after ``obs`` [..., F] if it was ``before`` [..., 2]: different for different histories."""
    total = 3 * before[..., :1] + np.asarray(obs, np.float64).sum(-1, keepdims=True) + 1
    return np.concatenate([total % 1009, before[..., 1:] + 1], -1)


class Remembers:
    """Records what it remembered before each step; the second number counts the steps of the episode."""

    def act(self, obs, state, rng, explore):
        before = np.zeros((len(obs), 2)) if state is None else state
        return PolicyOutput(np.zeros(len(obs), np.int64), {"before": before[:, 0].copy()}, follow(before, obs))


def replayed(arrays, before):
    """``before`` of every step [T], column by column and one step after the other, from the state before the first."""
    found = np.empty(arrays["reward"].shape)
    for b in range(found.shape[1]):
        state = before[b]
        for t in range(len(found)):
            found[t, b] = state[0]
            state = follow(state, arrays["obs"][t, b])
            spent_on_reset = "valid" in arrays and not arrays["valid"][t, b]
            if arrays["terminated"][t, b] or arrays["truncated"][t, b] or spent_on_reset:
                state = np.zeros(2)
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 7), st.booleans()), min_size=1, max_size=4), st.integers(1, 9))
def test_it_is_that_of_a_serial_replay_from_each_fragments_start(ends, steps):
    batch = GymnasiumBatch.of([Counting(*end) for end in ends], "Counting")
    rollout = EnvRollout(batch, Remembers(), env_schema(batch.spaces, RECORDED), steps, [1] * len(ends), None)
    seen = [rollout.collect(i, Timings()).arrays for i in range(3)]
    assert (seen[0]["state"] == 0).all()
    for arrays in seen:
        np.testing.assert_array_equal(arrays["before"], replayed(arrays, arrays["state"]))
    whole = {name: np.concatenate([arrays[name] for arrays in seen]) for name in ("reward", "terminated", "truncated")}
    whole["obs"] = np.concatenate([arrays["obs"][:-1] for arrays in seen])
    np.testing.assert_array_equal(
        np.concatenate([arrays["before"] for arrays in seen]), replayed(whole, seen[0]["state"])
    )


def test_a_step_spent_on_a_reset_is_forgotten_too():
    batch = make_batch("CartPole-v1", 3, backend="envpool", seed=1)
    rollout = EnvRollout(batch, Remembers(), env_schema(batch.spaces, RECORDED), 40, [1, 2, 3], None)
    for lease in range(2):
        arrays = rollout.collect(lease, Timings()).arrays
        assert not arrays["valid"].all()
        np.testing.assert_array_equal(arrays["before"], replayed(arrays, arrays["state"]))
    rollout.close()


class Shifted(gymnasium.ObservationWrapper):
    def __init__(self, env, by):
        super().__init__(env)
        self.by = np.float32(by)

    def observation(self, observation):
        return observation + self.by


def test_each_episode_of_a_group_has_its_own():
    envs = [Shifted(env, 10 * i) for i, env in enumerate((Counting(4), Counting(2), Counting(3, False)))]
    batch = GymnasiumBatch.of(envs, "Counting")
    schema = Schema({n: f for n, f in env_schema(batch.spaces, RECORDED).fields.items() if f.layout is Layout.STEP})
    schema = Schema({**schema.fields, "obs": Field("float32", (1,)), "valid": Field("bool")})
    arrays = GroupRollout(batch, Remembers(), schema, 9, seed=1, rng=None).collect(0, Timings()).arrays
    expected = replayed(arrays, np.zeros((3, 2)))
    np.testing.assert_array_equal(arrays["before"][arrays["valid"]], expected[arrays["valid"]])


class Uneven(Counting):
    """Episodes whose length depends on their seed."""

    def reset(self, *, seed=None, options=None):
        self.ends_at = self.ends_at if seed is None else 2 + seed % 4
        return super().reset(seed=seed)


class EveryTwo(gymnasium.Wrapper):
    """Ends an episode after two steps, though the environment's own goes on, and shows the steps since."""

    def __init__(self, env):
        super().__init__(env)
        self.over = True

    def reset(self, *, seed=None, options=None):
        if self.over or seed is not None:
            self.env.reset(seed=seed)
        self.over, self.since = False, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        _, reward, self.over, cut, info = self.env.step(action)
        self.since += 1
        return np.array([self.since], np.float32), reward, self.over or self.since == 2, cut, info


class Checks(Remembers):
    """The environment shows how many steps were taken since the episode's beginning: so does the memory."""

    def act(self, obs, state, rng, explore):
        acted = super().act(obs, state, rng, explore)
        np.testing.assert_array_equal(acted.state[:, 1] - 1, obs[:, 0])
        return acted


@pytest.mark.parametrize("wrappers", ["", f"{__name__}:EveryTwo"])
def test_the_evaluator_carries_it(wrappers):
    config = load("cartpole-ppo", [f"task.env={__name__}:Uneven", f"task.wrappers={[wrappers] if wrappers else []}"])
    assert play(config, Checks(), [3, 0, 5, 2, 9]) == [5.0, 2.0, 3.0, 4.0, 3.0]


def fragment(state, lease=0):
    T, B = 3, 2
    arrays = {
        "obs": np.zeros((T + 1, B, 1), np.float32),
        "action": np.zeros((T, B), np.int64),
        "reward": np.zeros((T, B), np.float32),
        "terminated": np.zeros((T, B), bool),
        "truncated": np.zeros((T, B), bool),
        "final_obs": np.zeros((0, 1), np.float32),
        "before": np.zeros((T, B)),
        "state": state,
    }
    return Trajectory("run", 1, 0, 1, lease, 0, lease, "task", SCHEMA.hash, T, B, arrays)


SCHEMA = env_schema(GymnasiumBatch.of([Counting()], "Counting").spaces, RECORDED)


def test_the_state_before_a_fragment_travels_and_is_joined_along_its_columns():
    sent = [fragment(np.arange(4.0).reshape(2, 2) + lease, lease) for lease in range(2)]
    got = [codec.decode(codec.encode(one, 1 << 20), 1 << 20) for one in sent]
    for one in got:
        validate(one, Expected(SCHEMA, "run"))
    joined = join_on_policy(got, SCHEMA).arrays["state"]
    assert joined.tolist() == [[0, 1], [2, 3], [1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("shape", np.zeros((3, 2))),  # a row for every column
        ("shape", np.zeros((3, 2, 2))),
        ("shape", np.zeros((2, 3))),
        ("dtype", np.zeros((2, 2), np.float32)),
        ("nan", np.full((2, 2), np.nan)),
        ("range", np.full((2, 2), 1e16)),
    ],
)
def test_a_state_that_does_not_fit_is_refused(reason, state):
    with pytest.raises(Rejected) as refused:
        validate(fragment(state), Expected(SCHEMA, "run"))
    assert refused.value.reason == reason
