"""DQN: the mathematics against slow versions and autograd, the two halves against each other, saving and going on."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from headrace.algorithms import dqn
from headrace.algorithms.acting import EpsilonGreedyPolicy
from headrace.algorithms.base import Batch
from headrace.common.errors import UsageError
from headrace.common.types import Layout, Spaces, Weights

SPACES = Spaces.box((4,), n_actions=3)


def minibatch(seed: int = 0, size: int = 16) -> Batch:
    rng = np.random.default_rng(seed)
    arrays = {
        "obs": rng.normal(size=(size, 4)).astype(np.float32),
        "action": rng.integers(0, 3, size),
        "reward": (3 * rng.normal(size=size)).astype(np.float32),
        "next_obs": rng.normal(size=(size, 4)).astype(np.float32),
        "discount": np.where(rng.random(size) < 0.3, 0.0, 0.9).astype(np.float32),
        "weight": rng.random(size).astype(np.float32),
    }
    return Batch(arrays, steps=size)


def published(algorithm: dqn.DQN) -> Weights:
    return Weights("run", 0, 1, *algorithm.weights())


def acting(algorithm: dqn.DQN) -> EpsilonGreedyPolicy:
    policy = dqn.policy(algorithm.config, SPACES)
    policy.load(published(algorithm))
    return policy


# --- the mathematics -----------------------------------------------------------------------------------------------


def test_td_target_equals_the_slow_version() -> None:
    rng = np.random.default_rng(0)
    chooser, valuer = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    reward, discount = rng.normal(size=50), rng.random(50) * (rng.random(50) < 0.7)
    slow = []
    for m in range(50):
        best = max(range(3), key=lambda a: chooser[m, a])
        slow.append(reward[m] + discount[m] * valuer[m, best])
    found = dqn.td_target(*(torch.from_numpy(x) for x in (reward, discount, chooser, valuer)))
    np.testing.assert_allclose(found.numpy(), slow)
    assert (np.abs(np.array(slow) - (reward + discount * valuer.max(axis=1))) > 0.01).any()  # not single Q-learning


def test_dueling_takes_the_mean_out_of_the_advantages() -> None:
    out = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q = dqn.dueling(out)
    torch.testing.assert_close(q.mean(1), out[:, 0])
    torch.testing.assert_close(q[:, 1] - q[:, 0], out[:, 2] - out[:, 1])


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_one_update_equals_autograd_with_torchs_adam_and_the_soft_update(dueling: bool, double: bool) -> None:
    config = dqn.Config(
        hidden=(8, 8), dueling=dueling, double=double, max_grad_norm=0.1, tau=0.1, learning_rate=0.01, minibatch=16
    )
    algorithm = dqn.DQN(config, SPACES, seed=0)
    target_value = algorithm._target.value
    target_value.add_(0.1 * torch.randn(target_value.shape, generator=torch.Generator().manual_seed(2)))
    online, target = copy.deepcopy(algorithm.q), copy.deepcopy(algorithm.target)
    batch = minibatch()

    def q_values(net: torch.nn.Module, obs: np.ndarray) -> torch.Tensor:
        out = net(torch.from_numpy(obs))
        return out[:, :1] + out[:, 1:] - out[:, 1:].mean(1, keepdim=True) if dueling else out

    reward, discount, weight = (torch.from_numpy(batch.arrays[name]) for name in ("reward", "discount", "weight"))
    with torch.no_grad():
        valuer = q_values(target, batch.arrays["next_obs"])
        best = (q_values(online, batch.arrays["next_obs"]) if double else valuer).argmax(1)
        y = reward + discount * valuer[torch.arange(16), best]
    q = q_values(online, batch.arrays["obs"])[torch.arange(16), torch.from_numpy(batch.arrays["action"])]
    error = q - y
    huber = torch.where(error.abs() < 1, 0.5 * error**2, error.abs() - 0.5)
    loss = (weight * huber).mean()
    optimiser = torch.optim.Adam(online.parameters(), lr=config.learning_rate, eps=1e-5)
    optimiser.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(online.parameters(), config.max_grad_norm)
    assert norm > config.max_grad_norm
    optimiser.step()
    before = target_value.clone()

    result = algorithm.update(batch)
    for mine, theirs in zip(algorithm.q.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(target_value, 0.9 * before + 0.1 * algorithm._online.value)
    assert result.metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert result.metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert result.priorities is None


def test_transitions_of_weight_zero_teach_nothing() -> None:
    batch = minibatch()
    batch.arrays["weight"][:8] = 0.0  # type: ignore[index]
    other = Batch(
        {**batch.arrays, "reward": np.where(np.arange(16) < 8, 100.0, batch.arrays["reward"]).astype(np.float32)}
    )
    one, two = dqn.DQN(dqn.Config(), SPACES, 0), dqn.DQN(dqn.Config(), SPACES, 0)
    one.update(batch), two.update(other)
    assert torch.equal(one._online.value, two._online.value)


def test_prioritised_replay_gets_the_size_of_the_td_errors() -> None:
    algorithm = dqn.DQN(dqn.Config(priority_alpha=0.6, tau=1.0), SPACES, 0)
    batch, policy = minibatch(), acting(algorithm)
    q = policy.q_values(batch.arrays["obs"])[np.arange(16), batch.arrays["action"]]
    following = policy.q_values(batch.arrays["next_obs"]).max(axis=1)
    priorities = algorithm.update(batch).priorities
    assert priorities is not None
    expected = np.abs(batch.arrays["reward"] + batch.arrays["discount"] * following - q)
    np.testing.assert_allclose(priorities, expected, rtol=1e-4, atol=1e-5)


def test_the_values_of_a_three_state_chain() -> None:
    """0 -> 1 -> 2 -> end with reward 1 at the end; the other action stays. gamma 0.5: Q* = gamma^distance."""
    algorithm = dqn.DQN(
        dqn.Config(gamma=0.5, learning_rate=0.01, tau=0.05, hidden=(16,), minibatch=6), Spaces.box((3,), n_actions=2), 0
    )
    states, actions = np.repeat(np.arange(3), 2), np.tile([0, 1], 3)
    after = np.where(actions == 1, np.minimum(states + 1, 2), states)
    ends = (states == 2) & (actions == 1)
    eye = np.eye(3, dtype=np.float32)
    arrays = {
        "obs": eye[states], "action": actions, "reward": ends.astype(np.float32), "next_obs": eye[after],
        "discount": np.where(ends, 0.0, 0.5).astype(np.float32), "weight": np.ones(6, np.float32),
    }  # fmt: skip
    for _ in range(1500):
        algorithm.update(Batch(arrays))
    policy = dqn.policy(algorithm.config, Spaces.box((3,), n_actions=2))
    policy.load(published(algorithm))
    np.testing.assert_allclose(policy.q_values(eye), [[0.125, 0.25], [0.25, 0.5], [0.5, 1.0]], atol=0.02)


# --- schedules -----------------------------------------------------------------------------------------------------


def test_epsilon_falls_with_the_run_and_travels_with_the_weights() -> None:
    config = dqn.Config(epsilon_start=1.0, epsilon_end=0.1, epsilon_fraction=0.2)
    algorithm = dqn.DQN(config, SPACES, 0)
    for fraction, epsilon in ((0.0, 1.0), (0.1, 0.55), (0.2, 0.1), (1.0, 0.1)):
        algorithm.progress(fraction)
        assert acting(algorithm).epsilon == pytest.approx(epsilon)
    assert dqn.Config(epsilon_end=0.3, epsilon_fraction=0.0).epsilon(0.0) == pytest.approx(0.3)


def test_the_step_size_falls_to_zero_or_stays() -> None:
    for end, expected in ((0.0, 0.0025), (0.01, 0.01)):
        algorithm = dqn.DQN(dqn.Config(learning_rate=0.01, learning_rate_end=end), SPACES, 0)
        algorithm.progress(0.75)
        assert algorithm.update(minibatch()).metrics["learning_rate"] == pytest.approx(expected)


# --- the acting half -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("hidden", [(64, 64), (32,)])
def test_the_numpy_policy_is_the_learners_network(dueling: bool, hidden: tuple[int, ...]) -> None:
    algorithm = dqn.DQN(dqn.Config(dueling=dueling, hidden=hidden), SPACES, seed=4)
    for i in range(20):
        algorithm.update(minibatch(i))
    obs = np.random.default_rng(1).normal(size=(100, 4)).astype(np.float32)
    with torch.no_grad():
        out = algorithm.q(algorithm.obs_norm(torch.from_numpy(obs)))
    expected = (dqn.dueling(out) if dueling else out).numpy()
    np.testing.assert_allclose(acting(algorithm).q_values(obs), expected, rtol=1e-6, atol=1e-6)


def test_exploring_takes_epsilon_random_actions_and_evaluation_none() -> None:
    algorithm = dqn.DQN(dqn.Config(epsilon_start=0.3, epsilon_end=0.3), SPACES, 0)
    policy, obs = acting(algorithm), np.random.default_rng(1).normal(size=(20_000, 4)).astype(np.float32)
    greedy = policy.act(obs, None, np.random.default_rng(0), explore=False)
    assert (greedy.action == policy.q_values(obs).argmax(axis=1)).all()
    assert greedy.extras == {}
    explored = policy.act(obs, None, np.random.default_rng(0), explore=True).action
    assert np.mean(explored != greedy.action) == pytest.approx(0.3 * 2 / 3, abs=0.02)
    assert explored.dtype == np.int64
    again = policy.act(obs, None, np.random.default_rng(0), explore=True).action
    assert (explored == again).all()


def test_weights_of_another_network_are_refused() -> None:
    policy = dqn.policy(dqn.Config(hidden=(32,)), SPACES)
    with pytest.raises(UsageError, match="of the widths"):
        policy.load(published(dqn.DQN(dqn.Config(hidden=(64,)), SPACES, 0)))


def test_importing_it_and_acting_costs_no_torch() -> None:
    code = (
        "import sys, numpy as np; from headrace.algorithms import dqn; from headrace.common.types import Spaces\n"
        "spaces = Spaces.box((4,), n_actions=2); dqn.policy(dqn.Config(), spaces); dqn.schema(dqn.Config(), spaces)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- what it declares, and bad input -------------------------------------------------------------------------------


def test_it_declares_replay_and_the_plain_schema() -> None:
    algorithm = dqn.DQN(dqn.Config(minibatch=32, n_step=3, priority_alpha=0.6), SPACES, 0)
    assert (algorithm.experience.batch, algorithm.experience.n_step) == (32, 3)
    assert algorithm.experience.priority_alpha == 0.6
    assert algorithm.schema.fields["final_obs"].layout is Layout.FINAL
    assert "behaviour_logp" not in algorithm.schema.fields


@pytest.mark.parametrize("spaces", [Spaces.box((3,), action_dim=1), Spaces.box((8, 8, 3), "uint8", n_actions=2)])
def test_spaces_it_cannot_serve_are_named_in_one_line(spaces: Spaces) -> None:
    for build in (dqn.policy, lambda config, spaces: dqn.DQN(config, spaces, 0)):
        with pytest.raises(UsageError, match=r"DQN|takes vectors") as caught:
            build(dqn.Config(), spaces)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma", 1.5), ("gamma", float("nan")), ("n_step", 0), ("n_step", 1001), ("epsilon_end", -0.1), ("minibatch", 0),
     ("learning_rate", 2.0), ("min_size", -1)],
)  # fmt: skip
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"(?s){name}.*input_value={value}"):
        dqn.Config(**{name: value})  # type: ignore[arg-type]


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_after_a_restore_training_goes_on_bit_for_bit() -> None:
    config = dqn.Config(priority_alpha=0.6)
    straight, resumed = dqn.DQN(config, SPACES, seed=1), dqn.DQN(config, SPACES, seed=2)
    straight.progress(0.25)
    for i in range(5):
        straight.update(minibatch(i))
    saved = straight.state()
    resumed.restore(type(saved)(saved.tensors, json.loads(json.dumps(saved.values))))
    assert resumed.weights()[1] == straight.weights()[1]
    for i in range(5, 10):
        one, two = straight.update(minibatch(i)), resumed.update(minibatch(i))
        assert one.metrics == two.metrics
        np.testing.assert_array_equal(one.priorities, two.priorities)
    for name, tensor in straight.state().tensors.items():
        np.testing.assert_array_equal(tensor, resumed.state().tensors[name], err_msg=name)


def test_another_architectures_checkpoint_is_refused() -> None:
    saved = dqn.DQN(dqn.Config(hidden=(8,)), SPACES, 0).state()
    with pytest.raises(UsageError, match="checkpoint of another network"):
        dqn.DQN(dqn.Config(hidden=(16,)), SPACES, 0).restore(saved)


def test_what_was_published_or_saved_does_not_change_afterwards() -> None:
    algorithm = dqn.DQN(dqn.Config(), SPACES, 0)
    tensors, state = algorithm.weights()[0], algorithm.state()
    before = {name: tensor.copy() for name, tensor in {**tensors, **state.tensors}.items()}
    algorithm.update(minibatch())
    for name, tensor in {**tensors, **state.tensors}.items():
        np.testing.assert_array_equal(tensor, before[name], err_msg=name)
