"""Whose fault a fragment is that the learner would refuse."""

import re

import numpy as np
import pytest

from headrace.actor.fitness import require_fit
from headrace.algorithms import ppo
from headrace.common.errors import EnvironmentFailed, HeadraceError
from headrace.common.types import Episode, Spaces, Trajectory
from headrace.common.validation import MAX_ABS, Expected, validate

SCHEMA = ppo.schema(ppo.Config(), Spaces.box((4,), n_actions=2))


def fragment(episodes=(), **changes):
    """Two steps of three environments; environment 2 ends an episode in step 0, environment 1 in step 1."""
    arrays = {
        "obs": np.zeros((3, 3, 4), np.float32),
        "action": np.zeros((2, 3), np.int64),
        "reward": np.zeros((2, 3), np.float32),
        "terminated": np.array([[0, 0, 1], [0, 0, 0]], bool),
        "truncated": np.array([[0, 0, 0], [0, 1, 0]], bool),
        "behaviour_logp": np.zeros((2, 3), np.float32),
        "final_obs": np.zeros((2, 4), np.float32),
    }
    for name, (at, value) in changes.items():
        arrays[name][at] = value
    return Trajectory("run", 1, 0, 0, 0, 7, 0, "X", SCHEMA.hash, 2, 3, arrays, episodes)


def require(trajectory):
    require_fit(trajectory, "X-v0", lambda t: validate(t, Expected(SCHEMA, "run")))


def test_what_the_learner_takes_is_fit_to_the_very_limit():
    require(fragment())
    require(fragment(obs=((0, 1, 2), MAX_ABS), reward=((1, 2), -MAX_ABS)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"obs": ((2, 1, 3), np.nan)}, "environment 'X-v0' number 1: obs holds nan"),
        ({"obs": ((0, 0, 0), -np.inf)}, "environment 'X-v0' number 0: obs holds -inf"),
        ({"reward": ((1, 2), 1e30)}, "environment 'X-v0' number 2: reward holds 1e+30"),
        ({"final_obs": ((0, 1), np.nan)}, "environment 'X-v0' number 2: final_obs holds nan"),
        ({"final_obs": ((1, 1), np.nan)}, "environment 'X-v0' number 1: final_obs holds nan"),
        ({"reward": ((0, 0), 1e16), "behaviour_logp": ((1, 0), np.nan)}, "number 0: reward holds 1e+16"),
    ],
)
def test_the_environment_that_did_it_is_named(changes, says):
    with pytest.raises(EnvironmentFailed, match=re.escape(says)):
        require(fragment(**changes))


def test_a_return_beyond_the_limit_is_the_environments_as_well():
    with pytest.raises(EnvironmentFailed, match="environments 'X-v0': an episode of 9 steps returned 1e\\+300"):
        require(fragment(episodes=(Episode(1e300, 9),)))


def test_what_the_policy_did_is_no_environments_fault():
    with pytest.raises(HeadraceError, match=r"policy of version 7 on 'X-v0': .*behaviour_logp") as caught:
        require(fragment(behaviour_logp=((0, 0), np.nan)))
    assert not isinstance(caught.value, EnvironmentFailed)
