"""Batches of environments: same-step reset, ends kept apart, actions mapped, bad spaces refused."""

import gymnasium
import numpy as np
import pytest

from headrace.common.errors import UsageError
from headrace.tasks import make_batch
from headrace.tasks.gymnasium_batch import GymnasiumBatch


class Counting(gymnasium.Env):
    """Shows how many steps were taken; ends at ``ends_at``, by termination or not."""

    observation_space = gymnasium.spaces.Box(-1e6, 1e6, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2, start=5)

    def __init__(self, ends_at=3, terminates=True):
        self.ends_at, self.terminates, self.seen = ends_at, terminates, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.array([0.0], np.float32), {}

    def step(self, action):
        self.seen.append(action)
        self.count += 1
        over = self.count == self.ends_at
        ended, cut = over and self.terminates, over and not self.terminates
        return np.array([self.count], np.float32), 1.0, ended, cut, {}


def test_reset_happens_in_the_same_step_and_the_last_observation_is_kept():
    batch = GymnasiumBatch.of([Counting(3, True), Counting(2, False)], "Counting")
    assert batch.reset([1, 2]).tolist() == [[0.0], [0.0]]
    batch.step(np.array([0, 1]))
    second = batch.step(np.array([0, 1]))
    assert second.obs.tolist() == [[2.0], [0.0]]
    assert second.final_obs.tolist() == [[2.0]]
    assert second.terminated.tolist() == [False, False]
    assert second.truncated.tolist() == [False, True]
    third = batch.step(np.array([0, 1]))
    assert third.obs.tolist() == [[0.0], [1.0]]
    assert third.terminated.tolist() == [True, False]
    assert batch.envs[0].seen == [5, 5, 5]  # the action space starts at 5
    assert batch.envs[1].seen == [6, 6, 6]


class Fixed(Counting):
    """Its spaces are properties of its class, which nobody can set."""

    observation_space = property(lambda self: gymnasium.spaces.Box(-1e6, 1e6, (1,), np.float32))
    action_space = property(lambda self: gymnasium.spaces.Discrete(2))


class Strict(Counting):
    action_space = gymnasium.spaces.Discrete(3)

    def step(self, action):
        assert self.action_space.contains(action), action
        return super().step(action)


class LastTwo(gymnasium.ActionWrapper):
    action_space = gymnasium.spaces.Discrete(2)

    def action(self, action):
        return action + 1


class Pushed(gymnasium.ActionWrapper):
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def action(self, action):
        return int(action[0] > 0)


@pytest.mark.parametrize(
    ("make", "action"),
    [
        (Fixed, np.array([1])),
        (lambda: LastTwo(Strict()), np.array([1])),
        (lambda: Pushed(Strict()), np.array([[0.5]], np.float32)),
    ],
    ids=["a property", "fewer actions", "a Box around a Discrete"],
)
def test_the_action_space_of_an_environment_and_its_wrapper_are_two(make, action):
    gymnasium.register("Two-v0", entry_point=make)
    try:
        batch = make_batch("Two-v0", 1)
        batch.reset([0])
        assert batch.step(action).reward.tolist() == [1.0]
    finally:
        gymnasium.registry.pop("Two-v0")


def test_actions_in_unit_range_reach_the_bounds():
    batch = make_batch("Pendulum-v1", 2)
    np.testing.assert_allclose(batch._env_actions(np.array([[-3.0], [0.5]], np.float32)), [[-2.0], [1.0]])
    assert batch.spaces.action_dim == 1


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("CartPole-v99", "v99"),
        ("NoSuchEnv-v0", "NoSuchEnv"),
    ],
)
def test_unknown_or_unfit_environments_are_one_clear_line(env_id, says):
    with pytest.raises(UsageError, match=says) as caught:
        make_batch(env_id, 1)
    assert "\n" not in str(caught.value)


def test_wrong_arguments_of_the_environment_are_one_clear_line():
    with pytest.raises(UsageError, match="gravitty"):
        make_batch("LunarLander-v3", 1, kwargs={"gravitty": 1})


def test_training_environments_have_no_render_mode():
    assert all(env.render_mode is None for env in make_batch("LunarLander-v3", 2).envs)


def test_envpool_marks_the_step_it_spends_on_a_reset():
    batch = make_batch("CartPole-v1", 4, backend="envpool", seed=1)
    assert batch.spaces.marks_invalid
    obs, resetting = batch.reset(range(4)), np.zeros(4, bool)
    ends = 0
    for _ in range(200):
        stepped = batch.step(np.ones(4, np.int64))
        np.testing.assert_array_equal(stepped.valid, ~resetting)
        assert not (stepped.terminated | stepped.truncated)[resetting].any()
        resetting = stepped.terminated | stepped.truncated
        ends += int(resetting.sum())
        if resetting.any():
            np.testing.assert_array_equal(stepped.final_obs, stepped.obs[resetting])
            assert (np.abs(stepped.final_obs[:, 0]) > 2.4).any() or (np.abs(stepped.final_obs[:, 2]) > 0.2).any()
    assert ends > 10
    assert obs.dtype == np.float32


def test_envpool_says_what_it_does_not_have():
    with pytest.raises(UsageError, match="EnvPool does not have it"):
        make_batch("NoSuchEnv-v0", 1, backend="envpool")


# --- one's own, and wrappers ---------------------------------------------------------------------------------------


class Lives(gymnasium.Wrapper):
    """Ends an episode after every other step; goes on in its middle at the next reset."""

    def reset(self, *, seed=None, options=None):
        self.taken = 0
        if seed is None and not self.over:
            return np.array([-1.0], np.float32), {}
        self.over = False
        return self.env.reset(seed=seed)

    def step(self, action):
        self.taken += 1
        shown, reward, self.over, truncated, info = self.env.step(action)
        return shown, -reward, self.over or self.taken == 2, truncated, info

    def __init__(self, env):
        super().__init__(env)
        self.over = True


def test_beneath_wrappers_the_environments_own_rewards_and_episodes_are_told():
    batch = make_batch(f"{__name__}:Counting", 1, kwargs={"ends_at": 3}, wrappers=[f"{__name__}:Lives"])
    batch.reset([1])
    told = [batch.step(np.array([0])) for _ in range(6)]
    assert [(r.reward[0], bool(r.terminated[0])) for r in told] == [(-1.0, bool(end)) for end in (0, 1, 1, 0, 1, 1)]
    assert [(r.own.reward[0], bool(r.own.ended[0])) for r in told] == [(1.0, bool(end)) for end in (0, 0, 1, 0, 0, 1)]


def test_without_wrappers_nothing_is_kept_beside():
    batch = make_batch(f"{__name__}:Counting", 1)
    batch.reset([1])
    assert batch.step(np.array([0])).own is None


def scale(reward: float) -> float:
    return 3 * reward


def test_gymnasiums_wrappers_are_found_by_name_with_arguments_and_functions():
    wrappers = ["FlattenObservation", {"name": "TransformReward", "func": f"{__name__}:scale"}]
    batch = make_batch(f"{__name__}:Counting", 1, wrappers=wrappers)
    batch.reset([1])
    assert batch.step(np.array([0])).reward.tolist() == [3.0]
    with pytest.raises(UsageError, match=r"task\.wrappers\[0\] = .*needs a name, as in"):
        make_batch("CartPole-v1", 1, wrappers=[{"max_reward": 1}])
    with pytest.raises(UsageError, match="EnvPool's environments take none"):
        make_batch("CartPole-v1", 1, backend="envpool", wrappers=wrappers)
