"""Shaped rewards: potentials telescope and leave optimal policies alone, terms are weighed, told, and checked."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import pytest

from headrace.common.errors import UsageError
from headrace.launch.build import Blueprint
from headrace.launch.load import load
from headrace.tasks.gymnasium_batch import GymnasiumBatch
from headrace.tasks.lunarlander import terms as lander_terms
from headrace.tasks.shaping import Shaped

GAMMA = 0.9
WEIGHTS = {"place": 3.0, "square": -0.5}


class Chain(gymnasium.Env):
    """States 0 to 4; right pays 1 on reaching 4, which ends it; left costs nothing."""

    observation_space = gymnasium.spaces.Box(0.0, 4.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, start: int = 1, limit: int = 100) -> None:
        self.start, self.limit = start, limit

    def reset(self, *, seed=None, options=None):
        self.at, self.steps = self.start, 0
        return np.array([self.at], np.float32), {}

    def step(self, action):
        self.at, self.steps = max(0, self.at + (1 if action else -1)), self.steps + 1
        over = self.at == 4
        return np.array([self.at], np.float32), float(over), over, self.steps == self.limit and not over, {}


def terms(shown, action):
    return {"place": float(shown[0]), "square": float(shown[0]) ** 2, "left": float(action == 0)}


def potential(at: int) -> float:
    return sum(WEIGHTS[name] * terms([at], None)[name] for name in WEIGHTS)


@pytest.mark.parametrize(("actions", "limit"), [((1, 0, 1, 1, 1), 100), ((0, 0, 1, 0), 4)], ids=["ended", "cut off"])
def test_a_potential_telescopes_to_what_the_start_was_worth(actions, limit):
    """Ng et al., theorem 1: the return changes by -Phi(s0), and by what a cut episode's last state is worth."""
    env = Shaped(Chain(limit=limit), terms, WEIGHTS, "potential", GAMMA)
    env.reset()
    plain, shaped = 0.0, 0.0
    own = Chain(limit=limit)
    own.reset()
    for t, action in enumerate(actions):
        plain += GAMMA**t * own.step(action)[1]
        shown, reward, terminated, truncated, _ = env.step(action)
        shaped += GAMMA**t * reward
    assert terminated or truncated
    left = 0.0 if terminated else GAMMA ** len(actions) * potential(int(shown[0]))
    assert shaped - left == pytest.approx(plain - potential(1))


def q_values(env: gymnasium.Env, states: int = 5) -> np.ndarray:
    """By value iteration, from what the environment itself says of every state and action."""
    q = np.zeros((states, 2))
    for _ in range(200):
        for state, action in itertools.product(range(states - 1), range(2)):
            env.unwrapped.start = state
            env.reset()
            shown, reward, terminated, _, _ = env.step(action)
            q[state, action] = reward + (0.0 if terminated else GAMMA * q[int(shown[0])].max())
    return q[:-1]


def test_the_optimal_policy_stays_and_that_of_a_replacement_need_not():
    plain = q_values(Chain())
    by_potential = q_values(Shaped(Chain(), terms, WEIGHTS, "potential", GAMMA))
    assert (by_potential.argmax(1) == plain.argmax(1)).all()
    np.testing.assert_allclose(by_potential, plain - [[potential(s)] for s in range(4)], atol=1e-9)
    replaced = q_values(Shaped(Chain(), terms, {"left": 1.0, "environment": 1.0}, "replace"))
    assert (replaced.argmax(1) != plain.argmax(1)).any()


def test_terms_are_weighed_and_told_a_step():
    weights = {"place": 2.0, "left": -1.0, "environment": 10.0}
    envs = [Shaped(Chain(start), terms, weights, "replace") for start in (1, 3)]
    batch = GymnasiumBatch.of(envs, "Chain")
    batch.reset([0, 0])
    assert batch.step(np.array([0, 1])).reward.tolist() == [-1.0, 8.0 + 10.0]
    assert batch.reward_terms() == {"place": 4.0, "left": -0.5, "environment": 5.0}
    assert batch.reward_terms() == {}


def test_lunarlanders_own_shaping_is_these_terms_with_its_own_weights():
    """Its reward less its potential of -100, -100, -100 and 10 is fuel alone, until it lands or crashes."""
    env = gymnasium.make("LunarLander-v3", disable_env_checker=True)
    shown, _ = env.reset(seed=3)
    own = {"distance": -100.0, "velocity": -100.0, "angle": -100.0, "legs": 10.0}
    before = sum(w * lander_terms(shown, None)[name] for name, w in own.items())
    for t in range(60):
        shown, reward, terminated, _, _ = env.step(t % 4)
        after = sum(w * lander_terms(shown, None)[name] for name, w in own.items())
        assert not terminated
        assert reward - (after - before) == pytest.approx(-0.3 * lander_terms(shown, t % 4)["engine"], abs=1e-3)
        before = after


@pytest.mark.parametrize(
    ("wrapping", "says"),
    [
        ({"kind": "potential", "gamma": 0.99}, r"gamma = 0\.99 and algorithm\.gamma is 0\.999; potentials leave"),
        ({"kind": "potential"}, "gamma = None and algorithm.gamma is 0.999"),
        ({"kind": "replace", "gamma": 0.999}, "needs gamma, the algorithm's, for kind = 'potential' and no other"),
        ({"kind": "add"}, "kind = 'add'; 'potential' or 'replace'"),
        ({"kind": "replace", "weights": {"height": 1.0}}, "weighs height; there are"),
        ({"kind": "potential", "gamma": 0.999, "weights": {"environment": 1.0}}, "weighs environment; there are"),
        ({"terms": "headrace.tasks.lunarlander:term"}, "has no 'term'"),
    ],
)
def test_what_is_wrong_is_one_line(wrapping, says):
    config = load("lunarlander-shaped")
    (given,) = config.task.wrappers
    before = {key: value for key, value in given.items() if key not in ("kind", "gamma")}
    task = config.task.model_copy(update={"wrappers": ({**before, **wrapping},)})
    with pytest.raises(UsageError, match=says) as caught:
        Blueprint(config.model_copy(update={"task": task})).check()
    assert "\n" not in str(caught.value)
