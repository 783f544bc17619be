"""The mathematics of PPO against slow, obvious versions, and gradients written out against autograd."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.algorithms import heads, nets, normalise, ppo
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


@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_gradients_written_out_equal_autograd(spaces):
    torch.manual_seed(0)
    M, clip, entropy_coef = 64, 0.2, 0.03
    flat = nets.Flat(heads.head_shapes(spaces) or {"none": (1, 1)}, "cpu")
    flat.value.uniform_(-0.5, 0.5)
    head, width = heads.make_head(spaces, flat), spaces.n_actions or spaces.action_dim
    out = torch.randn(width, M, requires_grad=True)
    action = torch.randint(0, width, (1, M)) if spaces.discrete else torch.randn(width, M)
    advantage = torch.randn(M)
    with torch.no_grad():
        logp = head.evaluate(out, action)
        old_logp = logp + 0.3 * torch.randn(M)
        d_logp, _ = ppo.surrogate_grad(logp, old_logp, advantage, clip)
        d_out = head.gradient(d_logp, -entropy_coef / M)

    log_std = flat.value.clone().view(-1, 1).requires_grad_()
    if spaces.discrete:
        distribution = torch.distributions.Categorical(logits=out.T)
        auto_logp, entropy = distribution.log_prob(action[0]), distribution.entropy()
    else:
        normal = torch.distributions.Normal(out, log_std.exp())
        auto_logp, entropy = normal.log_prob(action).sum(0), normal.entropy().sum(0)
    torch.testing.assert_close(logp, auto_logp)
    ratio = (auto_logp - old_logp).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    (-surrogate.mean() - entropy_coef * entropy.mean()).backward()
    torch.testing.assert_close(d_out, out.grad)
    if not spaces.discrete:
        torch.testing.assert_close(flat.grad.view(-1, 1), log_std.grad)


def test_mlp_and_adam_equal_torch():
    widths, flat = [5, 16, 8, 3], None
    flat = nets.Flat(nets.MLP.shapes("pi", widths), "cpu")
    net = nets.MLP(flat, "pi", widths)
    net.init_orthogonal(1.0, np.random.default_rng(0))
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    for layer, weight in zip(layers, net.weights, strict=True):
        layer.weight.data, layer.bias.data = weight[:, :-1].clone(), weight[:, -1].clone()
    reference = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    optimiser, adam = torch.optim.Adam(reference.parameters(), lr=0.01, eps=1e-5), nets.Adam(flat)
    for _ in range(5):
        x, target = torch.randn(32, 5), torch.randn(32, 3)
        x_FB = torch.cat([x.T, torch.ones(1, 32)])
        out = net.forward(x_FB)
        torch.testing.assert_close(out.T, reference(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net.predict(x_FB), out)
        net.backward(x_FB, 2 * (out - target.T))
        norm = flat.clip_grad(0.5)
        adam.advance(0.01)
        adam.step()
        optimiser.zero_grad()
        (reference(x) - target).square().sum().backward()
        torch.testing.assert_close(torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5), norm)
        optimiser.step()
    for layer, weight in zip(layers, net.weights, strict=True):
        torch.testing.assert_close(layer.weight, weight[:, :-1], atol=1e-5, rtol=1e-4)


def test_running_norm_equals_the_moments_of_everything_seen():
    rng, norm, seen = np.random.default_rng(0), normalise.RunningNorm(3), []
    for size in (7, 1, 100):
        rows = rng.normal([1, -2, 30], [1, 5, 0.1], (size, 3))
        norm.update(rows)
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
    advantage, target, _ = algorithm._estimate(algorithm.obs_norm.inputs(arrays["obs"]), arrays)

    def value(obs):
        return algorithm.vf.predict(algorithm.obs_norm.inputs(obs)).numpy()[0]

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
    np.testing.assert_array_equal(one.flat.value, other.flat.value)


def test_the_kl_limit_ends_the_epochs():
    run_on = ppo.PPO(ppo.Config(minibatch=8, epochs=10), DISCRETE, seed=0)
    stopped = ppo.PPO(ppo.Config(minibatch=8, epochs=10, target_kl=1e-9), DISCRETE, seed=0)
    assert run_on.update(fragment_batch(DISCRETE)).metrics["epochs"] == 10
    assert stopped.update(fragment_batch(DISCRETE)).metrics["epochs"] == 1
