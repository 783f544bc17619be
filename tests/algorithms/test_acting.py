"""Acting in numpy equals the learner's network, samples what its probabilities say, and loads no torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from headrace.algorithms import dqn, grpo, ppo, sac
from headrace.algorithms.acting import CategoricalPolicy, MultiCategoricalPolicy
from headrace.common.errors import UsageError
from headrace.common.types import Spaces, Weights

DISCRETE, CONTINUOUS = Spaces.box((8,), n_actions=4), Spaces.box((8,), action_dim=2)


def learner_and_policy(module, spaces):
    learner = getattr(module, module.__name__.rsplit(".", 1)[1].upper())(module.Config(), spaces, seed=3)
    for parameter in learner.pi.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    learner.obs_norm.update(torch.from_numpy(np.random.default_rng(0).normal(1.0, 3.0, (500, 8))))
    policy = module.policy(module.Config(), spaces)
    policy.load(Weights("run", 1, 1, *learner.weights()))
    return learner, policy


@pytest.mark.parametrize("module", [ppo, grpo])
@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_numpy_forward_and_logp_equal_the_learners_to_1e_6(module, spaces):
    learner, policy = learner_and_policy(module, spaces)
    obs = np.random.default_rng(1).normal(1.0, 3.0, (64, 8)).astype(np.float32)
    acted = policy.act(obs, None, np.random.default_rng(2), explore=True)
    with torch.no_grad():
        inputs = learner.obs_norm(torch.from_numpy(obs))
        np.testing.assert_allclose(policy.net(obs), learner.pi.net(inputs).numpy(), atol=1e-6)
        logp = learner.pi(inputs).log_prob(torch.from_numpy(acted.action))
    np.testing.assert_allclose(acted.extras["behaviour_logp"], logp.numpy(), atol=2e-6)


def test_numpy_forward_and_squashed_actions_equal_the_learners_to_1e_6():
    learner, policy = learner_and_policy(sac, CONTINUOUS)
    obs = np.random.default_rng(1).normal(1.0, 3.0, (64, 8)).astype(np.float32)
    noise = np.random.default_rng(2).standard_normal((64, 2), dtype=np.float32)
    with torch.no_grad():
        pi = learner.pi(learner.obs_norm(torch.from_numpy(obs)))
        for explore, drawn in ((True, noise), (False, np.zeros_like(noise))):
            acted = policy.act(obs, None, np.random.default_rng(2), explore)
            np.testing.assert_allclose(acted.action, pi.rsample(torch.from_numpy(drawn))[0].numpy(), atol=1e-6)
            assert acted.action.dtype == np.float32
            assert acted.extras == {}


def test_sampling_follows_the_probabilities_and_greedy_takes_the_best():
    _, policy = learner_and_policy(ppo, DISCRETE)
    obs = np.random.default_rng(1).normal(1.0, 3.0, (1, 8)).astype(np.float32)
    many = np.repeat(obs, 40_000, axis=0)
    logits = policy.net(obs)[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    actions = policy.act(many, None, np.random.default_rng(5), explore=True).action
    np.testing.assert_allclose(np.bincount(actions, minlength=4) / len(actions), expected, atol=0.015)
    assert policy.act(obs, None, np.random.default_rng(5), explore=False).action[0] == logits.argmax()


def test_weights_that_do_not_fit_together_are_refused():
    _, policy = learner_and_policy(ppo, DISCRETE)
    tensors = {"pi.0.weight": np.zeros((8, 4), np.float32), "pi.0.bias": np.zeros(3, np.float32)}
    with pytest.raises(UsageError, match="of the widths"):
        policy.load(Weights("run", 1, 1, tensors))
    with pytest.raises(UsageError, match="no network"):
        policy.load(Weights("run", 1, 1, {}))


@pytest.mark.parametrize("module", [ppo, grpo])
def test_images_are_refused_in_one_line(module):
    with pytest.raises(UsageError, match="takes vectors"):
        module.policy(module.Config(), Spaces.box((84, 84), "uint8", n_actions=2))


def test_what_an_actor_imports_holds_no_torch():
    code = (
        "import sys, headrace.launch.run_actor, headrace.actor.env_rollout, headrace.actor.group_rollout\n"
        "from headrace.launch.build import Blueprint; from headrace.launch.config import Config\n"
        "for name in ('ppo', 'grpo', 'dqn'): Blueprint(Config(algorithm={'name': name})).check()\n"
        "Blueprint(Config(algorithm={'name': 'sac'}, task={'env': 'Pendulum-v1'})).check()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("shape", [(8,), (), (3, 7), (8, 1)])
def test_what_is_no_batch_of_observations_is_refused(spaces, shape):
    _, policy = learner_and_policy(ppo, spaces)
    with pytest.raises(ValueError, match=r"expected a batch, \[B, 8\]"):
        policy.act(np.zeros(shape, np.float32), None, np.random.default_rng(0), explore=True)


def test_a_q_policy_refuses_it_as_well():
    learner = dqn.DQN(dqn.Config(), DISCRETE, seed=0)
    policy = dqn.policy(dqn.Config(), DISCRETE)
    policy.load(Weights("run", 1, 1, *learner.weights()))
    with pytest.raises(ValueError, match=r"shape \(8,\); expected a batch, \[B, 8\]"):
        policy.act(np.zeros(8, np.float32), None, np.random.default_rng(0), explore=False)


class _Zeros:
    """A generator of which each exponential variate is 0: in float32 one of some ten million is."""

    def standard_exponential(self, shape, dtype):
        return np.zeros(shape, dtype)


@pytest.mark.parametrize("choices", [(), (2, 3)], ids=["Discrete", "MultiDiscrete"])
def test_a_forbidden_action_is_not_chosen_whatever_the_generator_gives(choices):
    scores = np.zeros((1, sum(choices) or 3), np.float32)
    policy = MultiCategoricalPolicy(lambda seen: scores, choices) if choices else CategoricalPolicy(lambda seen: scores)
    mask = np.array([[False, True, False, False, True]])[:, : scores.shape[1]]
    out = policy.act({"observation": scores, "action_mask": mask}, None, _Zeros(), True)
    assert out.action.tolist() == ([[1, 2]] if choices else [1])
    assert np.isfinite(out.extras["behaviour_logp"]).all()
    assert out.extras["behaviour_logp"] > -1
