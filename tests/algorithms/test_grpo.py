"""Group-relative advantages, the KL to a reference, and groups that say nothing."""

import numpy as np
import pytest
import torch

from headrace.algorithms import grpo
from headrace.algorithms.base import Batch
from headrace.common.types import Spaces

SPACES = Spaces.box((3,), n_actions=2)


def parameters(algorithm):
    return torch.nn.utils.parameters_to_vector(algorithm.pi.parameters()).detach().clone()


def slow_advantage(returns, groups):
    out = []
    for ret, group in zip(returns, groups, strict=True):
        mates = [r for r, g in zip(returns, groups, strict=True) if g == group]
        out.append(0.0 if np.std(mates) < 1e-8 else (ret - np.mean(mates)) / np.std(mates))
    return out


def test_advantage_equals_the_slow_version_and_counts_groups_without_variance():
    returns, groups = np.array([1.0, 3.0, 2.0, 7.0, 7.0, 0.0, 5.0]), np.array([0, 0, 0, 1, 1, 2, 2])
    advantage, flat = grpo.group_advantage(returns, groups)
    np.testing.assert_allclose(advantage, slow_advantage(returns, groups))
    assert flat == 1
    assert advantage[3] == advantage[4] == 0.0


def test_reference_kl_is_never_negative_and_zero_for_the_reference_itself():
    logp, reference = torch.randn(2, 20, dtype=torch.float64)
    slow = [np.exp(r - p) - (r - p) - 1 for p, r in zip(logp.tolist(), reference.tolist(), strict=True)]
    assert min(slow) >= 0
    torch.testing.assert_close(grpo.reference_kl(logp, reference).item(), np.mean(slow))
    assert grpo.reference_kl(logp, logp) == 0


def group_batch(returns=(1.0, 0.0), seed=0):
    rng, steps = np.random.default_rng(seed), 40
    return Batch(
        {
            "obs": rng.standard_normal((steps, 3)).astype(np.float32),
            "action": rng.integers(0, 2, steps),
            "behaviour_logp": np.full(steps, np.log(0.5), np.float32),
            "episode": np.repeat([0, 1], steps // 2),
            "episode_return": np.array(returns),
            "episode_group": np.zeros(2, np.int64),
        }
    )


def test_a_group_without_variance_changes_nothing():
    algorithm = grpo.GRPO(grpo.Config(), SPACES, seed=0)
    before = parameters(algorithm)
    result = algorithm.update(group_batch((4.0, 4.0)))
    assert result.metrics["flat_groups"] == 1.0
    assert torch.equal(before, parameters(algorithm))


def test_actions_of_the_better_episode_become_likelier():
    algorithm = grpo.GRPO(grpo.Config(normalise_obs=False), SPACES, seed=0)
    batch = group_batch()
    inputs, action = (torch.from_numpy(batch.arrays[name]) for name in ("obs", "action"))
    before = algorithm.pi(inputs).log_prob(action).detach()
    for _ in range(20):
        algorithm.update(batch)
    gain = (algorithm.pi(inputs).log_prob(action).detach() - before).numpy()
    assert gain[:20].mean() > 0 > gain[20:].mean()


def test_the_kl_to_the_reference_holds_the_policy_back():
    free, held = (grpo.GRPO(grpo.Config(kl_coef=k, epochs=20), SPACES, seed=0) for k in (0.0, 10.0))
    start = parameters(free)
    for algorithm in (free, held):
        for _ in range(10):
            algorithm.update(group_batch())
    assert (parameters(held) - start).norm() < (parameters(free) - start).norm()


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_a_restored_state_goes_on_bit_for_bit(kl_coef):
    config = grpo.Config(minibatch=8, kl_coef=kl_coef, reference_every=2)
    one, other = grpo.GRPO(config, SPACES, seed=0), grpo.GRPO(config, SPACES, seed=1)
    one.update(group_batch())
    other.restore(one.state())
    for algorithm in (one, other):
        algorithm.update(group_batch(seed=1))
        algorithm.update(group_batch(seed=2))
    for name, tensor in one.state().tensors.items():
        np.testing.assert_array_equal(tensor, other.state().tensors[name])
