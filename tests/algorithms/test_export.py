"""An exported policy does what the policy does, with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from headrace.algorithms import dqn, ppo, sac
from headrace.algorithms.acting import GaussianPolicy
from headrace.algorithms.export import export
from headrace.common.errors import UsageError
from headrace.common.types import Spaces, Weights
from tests.algorithms.test_networks import OWN, PIXELS, observations

LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)
CASES = [
    pytest.param(ppo, ppo.Config(), Spaces.box((6,), n_actions=3), id="mlp"),
    pytest.param(ppo, ppo.Config(layer_norm=True, activation="relu"), Spaces.box((6,), n_actions=3), id="layer norm"),
    pytest.param(ppo, ppo.Config(normalise_obs=False), Spaces.box((), "int16", n_actions=3), id="a number"),
    pytest.param(ppo, ppo.Config(), Spaces.box((6,), action_dim=2), id="continuous"),
    pytest.param(ppo, ppo.Config(network="nature_cnn", hidden=(16,)), PIXELS, id="cnn"),
    pytest.param(ppo, ppo.Config(network=OWN), Spaces.box((6,), action_dim=2), id="one's own"),
    pytest.param(sac, sac.Config(hidden=(16,)), Spaces.box((6,), action_dim=2), id="sac"),
    pytest.param(dqn, dqn.Config(), Spaces.box((6,), n_actions=3), id="dqn"),
    pytest.param(dqn, dqn.Config(dueling=True), Spaces.box((6,), n_actions=3), id="dueling"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def trained(module: Any, config: Any, spaces: Spaces) -> tuple[Any, Weights]:
    """As if it had learnt: other weights, a normaliser that has seen something."""
    learner = getattr(module, module.__name__.rsplit(".", 1)[1].upper())(config, spaces, seed=3)
    noise = torch.Generator().manual_seed(0)
    for parameter in (learner.q if module is dqn else learner.pi).parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=noise))
    learner.obs_norm.update(torch.from_numpy(observations(spaces, 50)))
    weights, policy = Weights("run", 1, 1, *learner.weights()), module.policy(config, spaces)
    policy.load(weights)
    return policy, weights


def runner(graph: bytes) -> Callable[[np.ndarray], np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda obs: np.asarray(session.run(["action"], {"obs": obs})[0])


@pytest.mark.parametrize(("module", "config", "spaces"), CASES)
def test_greedy_it_does_what_the_policy_does(module: Any, config: Any, spaces: Spaces) -> None:
    policy, weights = trained(module, config, spaces)
    act = runner(export(policy, weights, spaces, None if spaces.discrete else (LOW, HIGH), sample=False))
    for batch in (1, 200):
        obs = observations(spaces, batch).astype(spaces.obs_dtype)
        expected = policy.act(obs, None, np.random.default_rng(0), explore=False).action
        if spaces.discrete:
            assert len(set(expected)) > 1 or batch == 1, "it chooses"
            np.testing.assert_array_equal(act(obs), expected)
        else:
            expected = LOW + (np.clip(expected, -1, 1) + 1) * (HIGH - LOW) / 2
            np.testing.assert_allclose(act(obs), expected, atol=1e-4)


@pytest.mark.parametrize("module", [ppo, dqn])
def test_stacked_frames_come_in_and_go_out_as_a_state(module: Any) -> None:
    spaces, k = Spaces.box((36, 36), "uint8", n_actions=3), 3
    config = module.Config(network="nature_cnn", hidden=(16,), frame_stack=k)
    policy, weights = trained(module, config, spaces)
    graph = export(policy, weights, spaces, None, sample=False)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    ours, theirs, chosen = None, np.zeros((40, k - 1, 36, 36), np.uint8), set()
    for step in range(5):
        obs = np.random.default_rng(step).integers(0, 256, (40, 36, 36), np.uint8)
        acted = policy.act(obs, ours, np.random.default_rng(0), explore=False)
        action, theirs = session.run(["action", "next_state"], {"obs": obs, "state": theirs})
        np.testing.assert_array_equal(action, acted.action)
        np.testing.assert_array_equal(theirs, acted.state)
        ours, chosen = acted.state, chosen | set(acted.action)
    assert len(chosen) > 1, "it chooses"


def test_sampling_follows_the_probabilities() -> None:
    policy, weights = trained(ppo, ppo.Config(), spaces := Spaces.box((6,), n_actions=3))
    obs = np.repeat(observations(spaces, 1), 40_000, axis=0)
    taken = np.bincount(runner(export(policy, weights, spaces, None, sample=True))(obs), minlength=3) / len(obs)
    logits = policy.net(obs[:1])[0].astype(np.float64)
    np.testing.assert_allclose(taken, np.exp(logits) / np.exp(logits).sum(), atol=0.015)


def test_sampling_continuous_actions_has_the_spread_of_the_policy() -> None:
    policy, weights = trained(ppo, ppo.Config(), spaces := Spaces.box((6,), action_dim=2))
    assert isinstance(policy, GaussianPolicy)
    policy.log_std = np.log(np.array([0.1, 0.05], np.float32))
    obs = np.zeros((40_000, 6), np.float32)
    policy.net.layers[-1] = (np.zeros_like(policy.net.layers[-1][0]), np.array([0.2, -0.1], np.float32))
    taken = runner(export(policy, weights, spaces, (LOW, HIGH), sample=True))(obs)
    half = (HIGH - LOW) / 2
    np.testing.assert_allclose(taken.mean(0), LOW + (np.array([0.2, -0.1]) + 1) * half, atol=0.01)
    np.testing.assert_allclose(taken.std(0), np.array([0.1, 0.05]) * half, rtol=0.03)


def test_what_cannot_be_exported_is_one_line() -> None:
    policy, weights = trained(dqn, dqn.Config(), spaces := Spaces.box((6,), n_actions=3))
    with pytest.raises(UsageError, match="nothing to sample from"):
        export(policy, weights, spaces, None, sample=True)
    with pytest.raises(UsageError, match="a dict has no graph"):
        export({}, weights, spaces, None, sample=False)  # type: ignore[arg-type]
