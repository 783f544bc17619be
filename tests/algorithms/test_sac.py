"""SAC: the mathematics against slow versions, an update against torch's own parts, what it declares, going on."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch

from headrace.algorithms import sac
from headrace.algorithms.base import Batch
from headrace.algorithms.distributions import SquashedGaussian
from headrace.common.errors import UsageError
from headrace.common.types import Spaces, Weights

SPACES = Spaces.box((4,), action_dim=2)
SMALL = {"hidden": (8, 8), "minibatch": 16}


def minibatch(seed: int = 0, size: int = 16) -> Batch:
    rng = np.random.default_rng(seed)
    arrays = {
        "obs": rng.normal(size=(size, 4)).astype(np.float32),
        "action": np.tanh(rng.normal(size=(size, 2))).astype(np.float32),
        "reward": (3 * rng.normal(size=size)).astype(np.float32),
        "next_obs": rng.normal(size=(size, 4)).astype(np.float32),
        "discount": np.where(rng.random(size) < 0.3, 0.0, 0.9).astype(np.float32),
        "weight": np.ones(size, np.float32),
    }
    return Batch(arrays, steps=size)


def make(seed: int = 0, **settings: object) -> sac.SAC:
    return sac.SAC(sac.Config(**{**SMALL, **settings}), SPACES, seed)  # type: ignore[arg-type]


def tensor(array: object) -> torch.Tensor:
    return torch.as_tensor(array)


# --- the mathematics -----------------------------------------------------------------------------------------------


def test_losses_equal_slow_loops() -> None:
    rng = np.random.default_rng(0)
    M, alpha, wanted = 50, 0.3, -2.0
    reward, logp, discount = rng.normal(size=M), rng.normal(size=M), rng.random(M) * (rng.random(M) < 0.7)
    q, q_next = rng.normal(size=(2, M)), rng.normal(size=(2, M))
    y, j_q, j_pi, j_alpha = [], 0.0, 0.0, 0.0
    for m in range(M):
        soft_value = min(q_next[0, m], q_next[1, m]) - alpha * logp[m]
        y.append(reward[m] + discount[m] * soft_value)
        for critic in range(2):
            j_q += (q[critic, m] - y[m]) ** 2 / 2 / M
        j_pi += (alpha * logp[m] - min(q[0, m], q[1, m])) / M
        j_alpha += -alpha * (logp[m] + wanted) / M
    target = sac.soft_target(tensor(reward), tensor(discount), tensor(q_next), tensor(logp), torch.tensor([alpha]))
    np.testing.assert_allclose(target, y, rtol=1e-5)
    assert float(sac.critic_loss(tensor(q), target)) == pytest.approx(j_q, rel=1e-5)
    assert float(sac.policy_loss(torch.tensor([alpha]), tensor(logp), tensor(q))) == pytest.approx(j_pi, rel=1e-5)
    assert float(sac.temperature_loss(torch.tensor([alpha]), tensor(logp), wanted)) == pytest.approx(j_alpha, rel=1e-5)


def test_the_squashed_density_is_the_normal_one_per_width_of_action() -> None:
    """Slowly: a short interval of u has a probability, and so has the interval of actions that it becomes."""
    rng = np.random.default_rng(0)
    mean, log_std, noise = rng.normal(size=(30, 2)), rng.uniform(-2, 0.5, (30, 2)), rng.normal(size=(30, 2))
    action, logp = SquashedGaussian(tensor(mean), tensor(log_std)).rsample(tensor(noise))
    for b in range(30):
        slow = 0.0
        for d in range(2):
            std, at, half = math.exp(log_std[b, d]), mean[b, d] + math.exp(log_std[b, d]) * noise[b, d], 1e-5
            ends = [math.erf((u - mean[b, d]) / std / math.sqrt(2)) / 2 for u in (at - half, at + half)]
            slow += math.log((ends[1] - ends[0]) / (math.tanh(at + half) - math.tanh(at - half)))
            assert float(action[b, d]) == pytest.approx(math.tanh(at))
        assert float(logp[b]) == pytest.approx(slow, abs=1e-4)


def test_the_density_of_a_saturated_action_is_finite_and_so_is_its_gradient() -> None:
    mean = torch.tensor([[60.0, -60.0], [0.0, 9.5]], requires_grad=True)
    action, logp = SquashedGaussian(mean, torch.zeros(2, 2)).rsample(torch.zeros(2, 2))
    assert (action[0].abs() == 1).all()
    # log(1 - tanh^2 u) = 2 log 2 - 2 |u| far out
    expected = [-math.log(2 * math.pi) - 2 * (2 * math.log(2) - 120), -math.log(2 * math.pi) - 2 * math.log(2) + 19]
    np.testing.assert_allclose(logp.detach(), expected, rtol=1e-6)
    logp.sum().backward()
    assert torch.isfinite(mean.grad).all()


def test_the_first_policy_acts_almost_uniformly() -> None:
    """That is why actors need no other rule before the first gradient step."""
    obs = np.random.default_rng(1).normal(size=(100_000, 4)).astype(np.float32)
    action = acting(make()).act(obs, None, np.random.default_rng(2), explore=True).action
    share, _ = np.histogram(action, bins=10, range=(-1, 1))
    share = share / share.sum()
    assert (share * np.log(10 * share)).sum() < 0.03
    assert share.min() > 0.07


# --- an update -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [False, True])
def test_one_update_equals_torchs_own_parts_in_the_papers_order(normalise: bool) -> None:
    lr, tau = 0.01, 0.1
    algorithm = make(learning_rate=lr, tau=tau, temperature=0.4, target_entropy=-0.7, normalise_obs=normalise)
    algorithm.obs_norm.update(torch.from_numpy(np.random.default_rng(5).normal(1, 3, (50, 4))))
    algorithm._target.value.add_(0.1 * torch.randn(algorithm._target.value.shape))
    pi, q, target, obs_norm = map(copy.deepcopy, (algorithm.pi, algorithm.q, algorithm.target, algorithm.obs_norm))
    log_alpha = torch.tensor([0.4]).log().requires_grad_()
    noise, noise_next = torch.from_numpy(copy.deepcopy(algorithm.rng).standard_normal((2, 16, 2), dtype=np.float32))
    batch = minibatch()
    action, reward, discount = (torch.from_numpy(batch.arrays[n]) for n in ("action", "reward", "discount"))
    x, x_next = (obs_norm(torch.from_numpy(batch.arrays[n])) for n in ("obs", "next_obs"))
    adams = [torch.optim.Adam(p, lr=lr, eps=1e-5) for p in (q.parameters(), pi.parameters(), [log_alpha])]

    def step(adam: torch.optim.Optimizer, loss: torch.Tensor) -> float:
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    with torch.no_grad():
        next_action, next_logp = pi(x_next).rsample(noise_next)
        y = reward + discount * (torch.min(*target(x_next, next_action)) - 0.4 * next_logp)
    one, two = q(x, action)
    j_q = step(adams[0], 0.5 * (one - y).square().mean() + 0.5 * (two - y).square().mean())
    mine, logp = pi(x).rsample(noise)
    j_pi = step(adams[1], (0.4 * logp - torch.min(*q(x, mine))).mean())
    j_alpha = step(adams[2], -(log_alpha.exp() * (logp.detach() - 2 * 0.7)).mean())
    with torch.no_grad():
        for old, new in zip(target.parameters(), q.parameters(), strict=True):
            old.copy_((1 - tau) * old + tau * new)

    metrics = algorithm.update(batch).metrics
    assert [metrics[f"{name}_loss"] for name in ("critic", "policy", "temperature")] == pytest.approx(
        [j_q, j_pi, j_alpha], rel=1e-5
    )
    assert metrics["q"] == pytest.approx(torch.stack([one, two]).mean().item(), rel=1e-4)
    assert metrics["entropy"] == pytest.approx(-logp.mean().item(), rel=1e-5)
    assert metrics["temperature"] == pytest.approx(0.4)
    for ours, theirs in ((algorithm.q, q), (algorithm.pi, pi), (algorithm.target, target)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(algorithm.temperature.log_alpha.detach(), log_alpha.detach(), rtol=1e-4, atol=1e-5)


def test_the_policys_loss_goes_through_the_action_and_leaves_the_critics_alone() -> None:
    """With no entropy in it, what it says of the policy can only have come through the critics' opinion of actions."""
    algorithm = make()
    x, noise = torch.randn(16, 4), torch.randn(16, 2)
    loss, _ = algorithm._j_pi(x, noise, torch.zeros(1))
    critics = algorithm.adam_q._flat.grad.fill_(7.0), algorithm._online.value.clone()
    algorithm.adam_pi.advance(1e-3)
    assert algorithm.adam_pi.minimise(loss, math.inf) > 1e-4
    assert (critics[0] == 7.0).all()
    assert torch.equal(critics[1], algorithm._online.value)
    blind, _ = algorithm._j_pi(x, noise, torch.zeros(1))
    grad = torch.autograd.grad(blind, list(algorithm.pi.parameters()))
    with torch.no_grad():  # a step up along it raises what the critics think of its actions
        before = algorithm.q(x, algorithm.pi(x).rsample(noise)[0]).amin(0).mean()
        for parameter, slope in zip(algorithm.pi.parameters(), grad, strict=True):
            parameter.sub_(0.01 * slope)
        assert algorithm.q(x, algorithm.pi(x).rsample(noise)[0]).amin(0).mean() > before


@pytest.mark.parametrize(("log_std", "rises"), [(-3.0, True), (0.0, False)])
def test_the_temperature_rises_while_there_is_too_little_entropy_and_falls_else(log_std: float, rises: bool) -> None:
    algorithm = make()
    algorithm.pi.net.head.bias.data[2:] = log_std
    first = algorithm.update(minibatch()).metrics["temperature"]
    for i in range(20):
        last = algorithm.update(minibatch(i)).metrics["temperature"]
    assert (last > first) is rises


def test_the_twin_critics_begin_apart_and_their_targets_with_them() -> None:
    algorithm = make()
    x, action = torch.randn(16, 4), torch.randn(16, 2).tanh()
    q = algorithm.q(x, action)
    assert q.shape == (2, 16)
    assert not torch.allclose(q[0], q[1])
    torch.testing.assert_close(algorithm.target(x, action), q)


def test_it_finds_the_best_action_of_a_bandit() -> None:
    """Reward -(a - 0.5)^2, over at once: greedy actions come to 0.5."""
    algorithm = sac.SAC(sac.Config(hidden=(32,), learning_rate=0.01, minibatch=64), Spaces.box((1,), action_dim=1), 0)
    rng, obs = np.random.default_rng(0), np.ones((64, 1), np.float32)
    for _ in range(400):
        action = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
        arrays = {"obs": obs, "next_obs": obs, "action": action, "discount": np.zeros(64, np.float32),
                  "reward": -10 * (action[:, 0] - 0.5) ** 2}  # fmt: skip
        algorithm.update(Batch(arrays))
    policy = sac.policy(algorithm.config, Spaces.box((1,), action_dim=1))
    policy.load(Weights("run", 0, 1, *algorithm.weights()))
    assert policy.act(obs[:1], None, rng, explore=False).action[0, 0] == pytest.approx(0.5, abs=0.1)


def test_the_step_size_falls_to_zero_or_stays() -> None:
    for end, expected in ((0.0, 0.0025), (0.01, 0.01)):
        algorithm = make(learning_rate=0.01, learning_rate_end=end)
        algorithm.progress(0.75)
        assert algorithm.update(minibatch()).metrics["learning_rate"] == pytest.approx(expected)


# --- the acting half -----------------------------------------------------------------------------------------------


def acting(algorithm: sac.SAC):  # type: ignore[no-untyped-def]
    policy = sac.policy(algorithm.config, SPACES)
    policy.load(Weights("run", 0, 1, *algorithm.weights()))
    return policy


def test_weights_of_another_policy_are_refused() -> None:
    policy = sac.policy(sac.Config(**SMALL), Spaces.box((4,), action_dim=3))
    with pytest.raises(UsageError, match=r"of the widths \[4, 8, 8, 6\]"):
        policy.load(Weights("run", 0, 1, *make().weights()))


# --- what it declares, and bad input -------------------------------------------------------------------------------


def test_it_declares_replay_and_the_plain_schema() -> None:
    declared = make(samples_per_insert=8, capacity=500, min_size=20, gamma=0.9).experience
    assert (declared.batch, declared.samples_per_insert, declared.capacity) == (16, 8, 500)
    assert (declared.min_size, declared.gamma, declared.n_step, declared.priority_alpha) == (20, 0.9, 1, 0)
    fields = make().schema.fields
    assert (fields["action"].dtype, fields["action"].shape) == ("float32", (2,))
    assert "behaviour_logp" not in fields


@pytest.mark.parametrize("spaces", [Spaces.box((3,), n_actions=2), Spaces.box((8, 8, 3), "uint8", action_dim=2)])
def test_spaces_it_cannot_serve_are_named_in_one_line(spaces: Spaces) -> None:
    for build in (sac.policy, lambda config, spaces: sac.SAC(config, spaces, 0)):
        with pytest.raises(UsageError, match="SAC") as caught:
            build(sac.Config(), spaces)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma", 1.5), ("tau", -0.1), ("tau", float("nan")), ("temperature", 0.0), ("minibatch", 0), ("min_size", -1),
     ("learning_rate", 2.0), ("activation", "gelu"), ("target_entropy", 0.7),
     ("target_entropy", float("nan"))],
)  # fmt: skip
def test_values_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"(?s){name}.*input_value={value!r}"):
        sac.Config(**{name: value})  # type: ignore[arg-type]


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_after_a_restore_training_goes_on_bit_for_bit() -> None:
    straight, resumed = make(seed=1), make(seed=2)
    straight.progress(0.25), resumed.progress(0.25)
    for i in range(5):
        straight.update(minibatch(i))
    saved = straight.state()
    resumed.restore(type(saved)(saved.tensors, json.loads(json.dumps(saved.values))))
    for i in range(5, 10):
        assert straight.update(minibatch(i)).metrics == resumed.update(minibatch(i)).metrics
    assert straight.state().values == resumed.state().values
    for name, array in straight.state().tensors.items():
        np.testing.assert_array_equal(array, resumed.state().tensors[name], err_msg=name)


def test_another_architectures_checkpoint_is_refused() -> None:
    with pytest.raises(UsageError, match="checkpoint of another network"):
        make(hidden=(16,)).restore(make(hidden=(8,)).state())


def test_what_was_published_or_saved_does_not_change_afterwards() -> None:
    algorithm = make()
    tensors, state = algorithm.weights()[0], algorithm.state()
    before = {name: array.copy() for name, array in {**tensors, **state.tensors}.items()}
    algorithm.update(minibatch())
    for name, array in {**tensors, **state.tensors}.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
