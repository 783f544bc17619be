"""The mathematics of PPO against slow, obvious versions, and a gradient step against torch's own tools."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.algorithms import distributions, normalise, optimise, ppo
from headrace.algorithms.base import Batch
from headrace.common.errors import UsageError
from headrace.common.types import Spaces

DISCRETE, CONTINUOUS = Spaces((5,), n_actions=3), Spaces((5,), action_dim=2)


def slow_gae(reward, value, next_value, done, gamma, lam):
    """Equation 16 by its definition: the discounted sum of TD errors up to the episode's end."""
    T, B = reward.shape
    advantage = np.zeros((T, B))
    for b in range(B):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                advantage[t, b] += weight * (reward[k, b] + gamma * next_value[k, b] - value[k, b])
                weight *= gamma * lam
                if done[k, b]:
                    break
    return advantage


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_gae_equals_the_slow_version(T, B, gamma, lam, seed):
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.standard_normal((3, T, B))
    done = rng.random((T, B)) < 0.3
    fast = ppo.gae(reward, value, next_value, done, gamma, lam)
    np.testing.assert_allclose(fast, slow_gae(reward, value, next_value, done, gamma, lam), atol=1e-10)


def test_the_clipped_surrogate_equals_the_slow_version_and_clipped_samples_teach_nothing():
    torch.manual_seed(0)
    log_ratio, advantage = 0.3 * torch.randn(64), torch.randn(64)
    log_ratio.requires_grad_()
    slow, teaches = [], []
    for log_r, a in zip(log_ratio.tolist(), advantage.tolist(), strict=True):
        r = math.exp(log_r)
        slow.append(min(r * a, max(0.8, min(1.2, r)) * a))
        teaches.append(not ((a > 0 and r > 1.2) or (a < 0 and r < 0.8)))
    objective = ppo.clipped_surrogate(log_ratio, advantage, 0.2)
    assert objective.item() == pytest.approx(sum(slow) / 64, abs=1e-6)
    objective.backward()
    assert (log_ratio.grad != 0).tolist() == teaches
    assert not all(teaches)


@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_distributions_are_torchs(spaces):
    torch.manual_seed(0)
    if spaces.discrete:
        logits, action = torch.randn(64, 3), torch.randint(0, 3, (64,))
        mine, theirs = distributions.Categorical(logits), torch.distributions.Categorical(logits=logits)
    else:
        mean, log_std, action = torch.randn(64, 2), torch.tensor([-0.7, 0.4]), torch.randn(64, 2)
        mine = distributions.Gaussian(mean, log_std)
        theirs = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(mine.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(mine.entropy(), theirs.entropy())


@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_one_gradient_step_equals_torchs_own_tools(spaces):
    """torch.distributions, clip_grad_norm_ and torch.optim.Adam, on copies of the networks."""
    config = ppo.Config(epochs=1, minibatch=24, normalise_obs=False, normalise_returns=False, max_grad_norm=0.1)
    algorithm, batch = ppo.PPO(config, spaces, seed=0), fragment_batch(spaces)
    pi, vf = copy.deepcopy(algorithm.pi), copy.deepcopy(algorithm.vf)
    x = torch.from_numpy(batch.arrays["obs"][:-1].reshape(24, 5))
    obs, final_obs = (torch.from_numpy(batch.arrays[name]) for name in ("obs", "final_obs"))
    advantage, target, _ = algorithm._estimate(obs, final_obs, batch.arrays)
    advantage = torch.from_numpy((advantage - advantage.mean()) / (advantage.std() + 1e-8)).ravel()
    action, old_logp = (torch.from_numpy(batch.arrays[name]).flatten(0, 1) for name in ("action", "behaviour_logp"))
    if spaces.discrete:
        distribution = torch.distributions.Categorical(logits=pi.net(x))
    else:
        distribution = torch.distributions.Independent(torch.distributions.Normal(pi.net(x), pi.log_std.exp()), 1)
    ratio = (distribution.log_prob(action) - old_logp).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    value_loss = torch.nn.functional.mse_loss(vf(x)[:, 0], torch.from_numpy(target).ravel())
    parameters = [*pi.parameters(), *vf.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, eps=1e-5)
    optimiser.zero_grad()
    (0.5 * value_loss - surrogate - 0.01 * distribution.entropy().mean()).backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.1)
    optimiser.step()
    metrics = algorithm.update(batch).metrics
    assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert norm > 0.1
    for mine, theirs in zip([*algorithm.pi.parameters(), *algorithm.vf.parameters()], parameters, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_gradient_that_is_not_finite_changes_nothing():
    flat = optimise.Flat(torch.nn.Linear(2, 1))
    flat.grad.copy_(torch.tensor([1.0, math.inf, math.nan]))
    assert not torch.isfinite(flat.clip_grad(1.0))
    assert torch.isfinite(flat.grad).all()


def test_running_norm_equals_the_moments_of_everything_seen():
    rng, norm, seen = np.random.default_rng(0), normalise.RunningNorm(3), []
    for size in (7, 1, 100):
        rows = rng.normal([1, -2, 30], [1, 5, 0.1], (size, 3))
        norm.update(torch.from_numpy(rows))
        seen.append(rows)
    everything = np.concatenate(seen)
    np.testing.assert_allclose(norm.mean, everything.mean(0), rtol=1e-3)
    np.testing.assert_allclose(norm.var, everything.var(0), rtol=1e-3)


def fragment_batch(spaces, T=6, B=4, seed=0):
    """A joined batch with episode ends of both kinds."""
    rng = np.random.default_rng(seed)
    ended = rng.random((T, B)) < 0.3
    terminated = ended & (rng.random((T, B)) < 0.5)
    t, b = np.nonzero(ended)
    action = rng.integers(0, 3, (T, B)) if spaces.discrete else rng.standard_normal((T, B, 2)).astype(np.float32)
    arrays = {
        "obs": rng.standard_normal((T + 1, B, 5)).astype(np.float32),
        "action": action,
        "reward": rng.standard_normal((T, B)).astype(np.float32),
        "terminated": terminated,
        "truncated": ended & ~terminated,
        "behaviour_logp": rng.standard_normal((T, B)).astype(np.float32) * 0.1 - 1,
        "final_obs": rng.standard_normal((len(t), 5)).astype(np.float32),
        "final_t": t,
        "final_b": b,
    }
    return Batch(arrays, T * B)


def test_truncation_bootstraps_from_the_final_observation_and_termination_does_not():
    algorithm = ppo.PPO(ppo.Config(gamma=0.9, gae_lambda=0.0, normalise_returns=False), DISCRETE, seed=0)
    arrays = fragment_batch(DISCRETE).arrays
    obs, final_obs = (torch.from_numpy(arrays[name]) for name in ("obs", "final_obs"))
    advantage, target, _ = algorithm._estimate(obs, final_obs, arrays)

    def value(obs):
        return algorithm._values(torch.from_numpy(obs))

    for t, b in np.ndindex(arrays["reward"].shape):
        if arrays["terminated"][t, b]:
            following = 0.0
        elif arrays["truncated"][t, b]:
            row = int(np.flatnonzero((arrays["final_t"] == t) & (arrays["final_b"] == b))[0])
            following = value(arrays["final_obs"][row : row + 1])[0]
        else:
            following = value(arrays["obs"][t + 1, b][None])[0]
        assert target[t, b] == pytest.approx(arrays["reward"][t, b] + 0.9 * following, abs=1e-5)
        here = value(arrays["obs"][t, b][None])[0]
        assert advantage[t, b] == pytest.approx(target[t, b] - here, abs=1e-5)


@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_a_restored_state_goes_on_bit_for_bit(spaces):
    config = ppo.Config(minibatch=8)
    one, other = ppo.PPO(config, spaces, seed=0), ppo.PPO(config, spaces, seed=1)
    one.update(fragment_batch(spaces))
    other.restore(one.state())
    for algorithm in (one, other):
        algorithm.update(fragment_batch(spaces, seed=1))
    for name, tensor in one.weights()[0].items():
        np.testing.assert_array_equal(tensor, other.weights()[0][name])


def test_a_state_of_another_architecture_is_refused_in_one_line():
    state = ppo.PPO(ppo.Config(hidden=(8,)), DISCRETE, seed=0).state()
    with pytest.raises(UsageError, match="another network"):
        ppo.PPO(ppo.Config(), DISCRETE, seed=0).restore(state)


def test_steps_marked_invalid_are_not_trained_on():
    config = ppo.Config(minibatch=64, epochs=1)
    batch = fragment_batch(DISCRETE)
    valid = np.ones((6, 4), bool)
    valid[0, 0] = False
    poisoned = dict(batch.arrays) | {"valid": valid, "behaviour_logp": batch.arrays["behaviour_logp"].copy()}
    one, other = ppo.PPO(config, DISCRETE, seed=0), ppo.PPO(config, DISCRETE, seed=0)
    one.update(Batch(poisoned | {"behaviour_logp": batch.arrays["behaviour_logp"]}))
    poisoned["behaviour_logp"][0, 0] = -50.0
    other.update(Batch(poisoned))
    for name, tensor in one.state().tensors.items():
        np.testing.assert_array_equal(tensor, other.state().tensors[name])


def test_the_kl_limit_ends_the_epochs():
    run_on = ppo.PPO(ppo.Config(minibatch=8, epochs=10), DISCRETE, seed=0)
    stopped = ppo.PPO(ppo.Config(minibatch=8, epochs=10, target_kl=1e-9), DISCRETE, seed=0)
    assert run_on.update(fragment_batch(DISCRETE)).metrics["epochs"] == 10
    assert stopped.update(fragment_batch(DISCRETE)).metrics["epochs"] == 1
