"""Networks that remember: sequences against one step after the other, actors and files against the learner."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from headrace.algorithms import acting_memory, memory, ppo
from headrace.algorithms.base import Batch, MemoryOptions
from headrace.algorithms.export import export
from headrace.common import named
from headrace.common.errors import UsageError
from headrace.common.seeding import stream
from headrace.common.types import Layout, Spaces, Weights
from tests.algorithms import test_spaces as several
from tests.algorithms.test_networks import OWN, PIXELS, VECTOR, observations

LSTM, GRU = {"memory": "lstm", "memory_width": 5}, {"memory": "gru", "memory_width": 5}
CASES = [
    pytest.param(ppo.Config(hidden=(8,), **LSTM), VECTOR, id="lstm"),
    pytest.param(ppo.Config(hidden=(), **GRU), Spaces.box((6,), action_dim=2), id="gru, no body, continuous"),
    pytest.param(ppo.Config(network="nature_cnn", hidden=(16,), **LSTM), PIXELS, id="cnn"),
    pytest.param(ppo.Config(network=OWN, **GRU), VECTOR, id="one's own"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


# --- sequences -----------------------------------------------------------------------------------------------------


def remembered(net: memory.Memory, x: torch.Tensor, state: torch.Tensor, ended: np.ndarray) -> torch.Tensor:
    """The states after each step [T, B, S], column by column, one step after the other."""
    found = torch.empty(*x.shape[:2], net.state_width)
    for b in range(x.shape[1]):
        before = state[b : b + 1]
        for t in range(len(x)):
            found[t, b] = after = net(x[t, b : b + 1], before)[0]
            before = torch.zeros(1, net.state_width) if t < len(ended) and ended[t, b] else after[None]
    return found


def batch(config: ppo.Config, spaces: Spaces, T: int, B: int, seed: int, ends: float = 0.3) -> Batch:
    """Joined fragments with episode ends of both kinds, and the states before them."""
    rng = np.random.default_rng(seed)
    ended = rng.random((T, B)) < ends
    terminated = ended & (rng.random((T, B)) < 0.5)
    t, b = np.nonzero(ended)
    return Batch({
        "obs": observations(spaces, (T + 1) * B).reshape(T + 1, B, *spaces.obs_shape),
        "action": rng.integers(0, 3, (T, B)) if spaces.discrete else rng.standard_normal((T, B, 2)).astype(np.float32),
        "reward": rng.standard_normal((T, B)).astype(np.float32),
        "terminated": terminated,
        "truncated": ended & ~terminated,
        "behaviour_logp": rng.standard_normal((T, B)).astype(np.float32) * 0.1 - 1,
        "state": rng.uniform(-1, 1, (B, acting_memory.state_width(config))).astype(np.float32),
        "final_obs": observations(spaces, len(t)),
        "final_t": t,
        "final_b": b,
    })  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["lstm", "gru"]), st.integers(1, 8), st.integers(1, 3), st.integers(0, 2**31))
def test_sequences_are_one_step_after_the_other(kind: str, T: int, B: int, seed: int) -> None:
    config = ppo.Config(hidden=(8,), memory=kind, memory_width=5)
    net, arrays = memory.make(config, VECTOR, stream(0, "m")), batch(config, VECTOR, T, B, seed).arrays
    assert isinstance(net, memory.Memory)
    x, final = torch.from_numpy(arrays["obs"]), torch.from_numpy(arrays["final_obs"])
    with torch.no_grad():
        states = remembered(net, x, torch.from_numpy(arrays["state"]), arrays["terminated"] | arrays["truncated"])
        seen, final_seen = net.follow(x, final, arrays)
        torch.testing.assert_close(seen, states[..., :5], atol=1e-6, rtol=1e-5)
        for k, (t, b) in enumerate(zip(arrays["final_t"], arrays["final_b"], strict=True)):
            expected = net(final[k : k + 1], states[t, b][None])[0, :5]
            torch.testing.assert_close(final_seen[k], expected, atol=1e-6, rtol=1e-5)
        samples = net.samples([x[:-1]], arrays, np.arange(T * B), T)
        assert (samples.minibatch, samples.axis, len(samples.chosen)) == (1, 1, B)
        torch.testing.assert_close(net.unroll(*samples.tensors), states[:-1, ..., :5], atol=1e-6, rtol=1e-5)


def test_one_gradient_step_equals_torchs_own_tools() -> None:
    """nn.LSTM over the whole fragment, torch.distributions, clip_grad_norm_ and torch.optim.Adam."""
    config = ppo.Config(hidden=(), epochs=1, minibatch=24, normalise_obs=False, normalise_returns=False, **LSTM)
    algorithm, given_ = ppo.PPO(config, VECTOR, seed=0), batch(config, VECTOR, 6, 4, seed=1, ends=0.0)
    arrays, cell = given_.arrays, algorithm.memory.cell
    lstm, pi, vf = nn.LSTM(6, 5), copy.deepcopy(algorithm.pi.net.head), copy.deepcopy(algorithm.vf.head)
    lstm.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    advantage, target, _ = algorithm._estimate(
        *(torch.from_numpy(arrays[name]) for name in ("obs", "final_obs")), arrays
    )
    advantage = torch.from_numpy((advantage - advantage.mean()) / (advantage.std() + 1e-8))
    h, c = torch.from_numpy(arrays["state"][None]).chunk(2, -1)
    seen, _ = lstm(torch.from_numpy(arrays["obs"][:-1]), (h.contiguous(), c.contiguous()))
    chosen = torch.distributions.Categorical(logits=pi(seen))
    ratio = (chosen.log_prob(torch.from_numpy(arrays["action"])) - torch.from_numpy(arrays["behaviour_logp"])).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    value_loss = nn.functional.mse_loss(vf(seen)[..., 0], torch.from_numpy(target))
    parameters = [*lstm.parameters(), *pi.parameters(), *vf.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, eps=1e-5)
    (0.5 * value_loss - surrogate - 0.01 * chosen.entropy().mean()).backward()
    norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    optimiser.step()
    assert algorithm.update(given_).metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    mine = [*cell.parameters(), *algorithm.pi.parameters(), *algorithm.vf.parameters()]
    for ours, theirs in zip(mine, parameters, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    config = ppo.Config(hidden=(8,), minibatch=8, **LSTM)
    one, other = ppo.PPO(config, VECTOR, seed=0), ppo.PPO(config, VECTOR, seed=1)
    one.update(batch(config, VECTOR, 4, 6, seed=0))
    other.restore(one.state())
    for algorithm in (one, other):
        algorithm.update(batch(config, VECTOR, 4, 6, seed=1))
    for name, tensor in one.weights()[0].items():
        np.testing.assert_array_equal(tensor, other.weights()[0][name])


# --- acting --------------------------------------------------------------------------------------------------------


def trained(config: ppo.Config, spaces: Spaces) -> tuple[ppo.PPO, Any, Weights]:
    """As if it had learnt: other weights, a normaliser that has seen something."""
    learner, policy = ppo.PPO(config, spaces, seed=3), ppo.policy(config, spaces)
    noise = torch.Generator().manual_seed(0)
    for parameter in (*learner.memory.parameters(), *learner.pi.parameters()):
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=noise))
    learner.obs_norm.update(torch.from_numpy(observations(spaces, 50)))
    weights = Weights("run", 1, 1, *learner.weights())
    policy.load(weights)
    return learner, policy, weights


def episodes(spaces: Spaces, T: int, B: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T, B, ...] and where an episode ends after them [T, B]."""
    obs = observations(spaces, T * B).reshape(T, B, *spaces.obs_shape)
    return obs, np.random.default_rng(4).random((T, B)) < 0.2


@pytest.mark.parametrize(("config", "spaces"), CASES)
def test_what_acts_without_torch_remembers_what_is_learned(config: ppo.Config, spaces: Spaces) -> None:
    learner, policy, _ = trained(config, spaces)
    assert ppo.schema(config, spaces).fields["state"].layout is Layout.START
    (obs, ended), state, rng = episodes(spaces, 9, 3), None, np.random.default_rng(2)
    actions, logp = [], []
    for t in range(9):
        acted = policy.act(obs[t], state, rng, explore=True)
        actions.append(acted.action)
        logp.append(acted.extras["behaviour_logp"])
        state = acted.state
        state[ended[t]] = 0
    begins = np.concatenate([np.ones((1, 3), bool), ended[:-1]])
    with torch.no_grad():
        start = torch.ones(1, 3, acting_memory.state_width(config))  # forgotten
        seen = learner.memory.unroll(learner.obs_norm(torch.from_numpy(obs)), start, torch.from_numpy(begins))
        expected = learner.pi(seen).log_prob(torch.from_numpy(np.stack(actions)))
    np.testing.assert_allclose(np.stack(logp), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("config", "spaces"), CASES)
def test_exported_it_does_what_the_policy_does(config: ppo.Config, spaces: Spaces) -> None:
    _, policy, weights = trained(config, spaces)
    low, high = -np.ones(2, np.float32), np.ones(2, np.float32)
    graph = export(policy, weights, spaces, None if spaces.discrete else (low, high), sample=False)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["obs", "state"]
    (obs, ended), mine, taken = episodes(spaces, 40, 3), None, []
    theirs = np.zeros((3, session.get_inputs()[1].shape[1]), np.float32)
    for t in range(len(obs)):
        acted = policy.act(obs[t], mine, np.random.default_rng(0), explore=False)
        action, theirs = session.run(["action", "next_state"], {"obs": obs[t], "state": theirs})
        np.testing.assert_allclose(
            action, np.clip(acted.action, -1, 1) if spaces.action_dim else acted.action, atol=1e-4
        )
        np.testing.assert_allclose(theirs, acted.state, atol=1e-5)
        mine = acted.state
        mine[ended[t]] = theirs[ended[t]] = 0
        taken.append(action)
    assert spaces.action_dim or len(set(np.ravel(taken).tolist())) > 1, "it chooses"


def test_an_actor_with_a_memory_loads_no_torch(tmp_path: Path) -> None:
    config = ppo.Config(**LSTM)
    np.savez(tmp_path / "weights.npz", **ppo.PPO(config, VECTOR, seed=0).weights()[0])
    code = (
        "import sys, numpy as np\n"
        "from headrace.algorithms import ppo\n"
        "from headrace.common.types import Spaces, Weights\n"
        "policy = ppo.policy(ppo.Config(memory='lstm', memory_width=5), Spaces.box((6,), n_actions=3))\n"
        f"policy.load(Weights('run', 1, 0, dict(np.load({str(tmp_path / 'weights.npz')!r}))))\n"
        "acted = policy.act(np.zeros((8, 6), np.float32), None, np.random.default_rng(0), True)\n"
        "assert acted.state.shape == (8, 10)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_it_remembers_several_observations_and_obeys_their_mask(kind: str) -> None:
    """Through PPO: the first gradient step meets the policy that acted, ratios of 1."""
    spaces, rng, (T, B) = several.spaces_of(several.PIXELS, several.MULTI), np.random.default_rng(0), (4, 6)
    config = ppo.Config(network="nature_cnn", hidden=(16,), minibatch=24, epochs=1, memory=kind, memory_width=5)
    learner, policy, _ = several.trained(ppo, config, spaces)
    obs = several.observations(spaces, (T + 1) * B)
    ends = np.zeros((T, B), bool)
    ends[1, 2] = ends[3, 0] = True
    acts, state = [], None
    for t in range(T):
        acts.append(policy.act(named.rows(obs, slice(t * B, t * B + B)), state, rng, explore=True))
        state = acts[-1].state
        state[ends[t]] = 0
    arrays = {
        **named.spread("obs", named.each(lambda part: part.reshape(T + 1, B, *part.shape[1:]), obs)),
        **named.spread("final_obs", named.rows(obs, slice(0, 2))),
        "final_t": np.array([1, 3]), "final_b": np.array([2, 0]), "terminated": ends, "truncated": ~ends & False,
        "action": np.stack([one.action for one in acts]), "state": np.zeros_like(state),
        "behaviour_logp": np.stack([one.extras["behaviour_logp"] for one in acts]),
        "reward": rng.normal(size=(T, B)).astype(np.float32),
    }  # fmt: skip
    assert learner.update(Batch(arrays, T * B)).metrics["kl"] == pytest.approx(0.0, abs=1e-5)
    arrays["state"] = np.ones_like(state)
    assert learner.update(Batch(arrays, T * B)).metrics["kl"] > 1e-4, "it does go through the memory"


# --- what is refused -----------------------------------------------------------------------------------------------


def test_what_a_memory_cannot_serve_is_one_line() -> None:
    config = ppo.Config(memory="lstm")
    with pytest.raises(UsageError, match=r"EnvPool spends on resets; use task.backend = 'gymnasium'"):
        ppo.policy(config, replace(VECTOR, marks_invalid=True))
    with pytest.raises(UsageError, match="takes vectors, and observations are uint8"):
        ppo.policy(config, PIXELS)
    both = ppo.Config("nature_cnn", memory="gru", frame_stack=4)
    with pytest.raises(UsageError, match="who remembers needs no stack of frames; choose one"):
        ppo.policy(both, PIXELS)


def test_weights_of_another_memory_are_refused() -> None:
    _, _, weights = trained(ppo.Config(**LSTM), VECTOR)
    for other in (ppo.Config(memory="lstm", memory_width=6), ppo.Config(**GRU)):
        with pytest.raises(UsageError, match="another network"):
            ppo.policy(other, VECTOR).load(weights)
    assert isinstance(ppo.Config(**GRU), MemoryOptions)
