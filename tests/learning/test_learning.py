"""Every algorithm learns something small in seconds: serial, in lockstep, so the same numbers every time."""

from __future__ import annotations

import pytest

from headrace.algorithms.base import Algorithm
from headrace.common.seeding import evaluation_seeds
from headrace.common.types import Weights
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.evaluate import play
from headrace.launch.load import load
from headrace.launch.serial import run_serial

EPISODES = 20

#: preset, what is set, a greedy mean that the trained policy reaches and the untrained one does not
LESSONS = [
    ("cartpole-ppo", ["run.total_steps=60_000"], 400),
    ("cartpole-recurrent-ppo", ["run.total_steps=60_000"], 120),
    ("cartpole-dqn", ["run.total_steps=30_000"], 150),
    pytest.param("cartpole-r2d2", ["run.total_steps=60_000"], 80, marks=pytest.mark.timeout(400)),
    ("cartpole-grpo", ["run.total_steps=60_000"], 300),
    ("pendulum-sac", ["run.total_steps=5_000"], -300),
    ("cartpole-ppo", ["run.total_steps=150_000", "task.env=Pendulum-v1"], -500),
]


def greedy_mean(config: Config, algorithm: Algorithm) -> float:
    tensors, scalars = algorithm.weights()
    policy = Blueprint(config).policy()
    policy.load(Weights("lesson", 0, 0, tensors, scalars))
    returns = play(config, policy, evaluation_seeds(EPISODES))
    return sum(returns) / EPISODES


@pytest.mark.parametrize(("preset", "overrides", "reached"), LESSONS)
def test_learns_within_seconds(preset, overrides, reached):
    config = load(preset, ["run.seed=1", "learner.max_staleness=0", "learner.device=cpu", *overrides])
    before = greedy_mean(config, Blueprint(config).algorithm())
    after = greedy_mean(config, run_serial(config).algorithm)
    assert before < reached <= after, f"{before:.1f} before, {after:.1f} after"
