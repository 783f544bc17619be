"""R2D2's loss against a slow loop, what its burn-in keeps from the gradient, and its state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headrace.algorithms import memory, r2d2
from headrace.algorithms.base import Batch
from headrace.common.errors import UsageError
from headrace.common.types import Field, Spaces, Weights
from tests.algorithms.test_memory import batch, remembered
from tests.algorithms.test_networks import VECTOR, observations

CONFIG = r2d2.Config(hidden=(8,), memory_width=5, burn_in=2, normalise_obs=False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def sequences(seed: int, T: int = 7, M: int = 4) -> dict[str, np.ndarray]:
    made = batch(CONFIG, VECTOR, T, M, seed, ends=0.2).arrays
    return {name: made[name] for name in ("obs", "action", "reward", "terminated", "truncated", "state")}


def tensors(arrays: dict[str, np.ndarray]) -> list[torch.Tensor]:
    context = memory.context(arrays, torch.device("cpu"))
    names = ("action", "reward", "terminated", "truncated")
    return [torch.from_numpy(arrays["obs"]), *context, *(torch.from_numpy(arrays[name]) for name in names)]


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_equals_the_slow_version(seed: int) -> None:
    algorithm, arrays = r2d2.R2D2(CONFIG, VECTOR, seed=0), sequences(seed)
    for parameter in (*algorithm.target_memory.parameters(), *algorithm.target.parameters()):
        parameter.data.add_(0.1)
    ended = arrays["terminated"] | arrays["truncated"]
    with torch.no_grad():
        q, q_target = (
            net(remembered(cell, torch.from_numpy(arrays["obs"]), torch.from_numpy(arrays["state"]), ended)[..., :5])
            for cell, net in ((algorithm.memory, algorithm.q), (algorithm.target_memory, algorithm.target))
        )
    losses = []
    for t, m in np.ndindex(arrays["reward"].shape):
        if t < CONFIG.burn_in or arrays["truncated"][t, m]:
            continue
        best = q[t + 1, m].argmax()
        after = 0.0 if arrays["terminated"][t, m] else float(q_target[t + 1, m, best])
        error = abs(float(q[t, m, arrays["action"][t, m]]) - arrays["reward"][t, m] - CONFIG.gamma * after)
        losses.append(0.5 * error**2 if error < 1 else error - 0.5)
    loss, _, _ = algorithm._td_loss(*tensors(arrays))
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_no_gradient_flows_into_the_burn_in() -> None:
    algorithm, arrays = r2d2.R2D2(CONFIG, VECTOR, seed=0), sequences(0)
    arrays["terminated"][:] = arrays["truncated"][:] = False
    x, *rest = tensors(arrays)
    x.requires_grad_()
    algorithm._td_loss(x, *rest)[0].backward()
    assert x.grad is not None
    teaches = x.grad.abs().sum((1, 2)) > 0
    assert teaches.tolist() == [False, False, *[True] * 5, False]


def test_a_restored_state_goes_on_bit_for_bit_and_is_what_acts() -> None:
    one, other = r2d2.R2D2(CONFIG, VECTOR, seed=0), r2d2.R2D2(CONFIG, VECTOR, seed=1)
    one.update(Batch(sequences(0)))
    other.restore(one.state())
    for algorithm in (one, other):
        algorithm.update(Batch(sequences(1)))
    for name, tensor in one.state().tensors.items():
        np.testing.assert_array_equal(tensor, other.state().tensors[name])
    policy = r2d2.policy(CONFIG, VECTOR)
    policy.load(Weights("run", 1, 0, *one.weights()))
    obs, state = observations(VECTOR, 12).reshape(4, 3, 6), None
    for t in range(4):
        acted = policy.act(obs[t], state, np.random.default_rng(0), explore=False)
        state = acted.state
    with torch.no_grad():
        seen = one.memory.unroll(torch.from_numpy(obs), torch.zeros(1, 3, 10), torch.zeros(4, 3, dtype=torch.bool))
        np.testing.assert_array_equal(acted.action, one.q(seen[-1]).argmax(-1).numpy())


def test_what_it_cannot_serve_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"burn_in = 2 leaves nothing of actors.fragment_steps = 2"):
        r2d2.R2D2(CONFIG, VECTOR, seed=0).update(Batch(sequences(0, T=2)))
    with pytest.raises(UsageError, match="R2D2 needs a Discrete action space"):
        r2d2.policy(CONFIG, Spaces.box((6,), action_dim=2))


def test_actions_it_cannot_choose_from_are_named() -> None:
    several = Field("int64", (2,), below=(2, 3), start=(0, 0))
    with pytest.raises(UsageError, match="R2D2 needs a Discrete action space and this one is a MultiDiscrete; PPO"):
        r2d2.policy(CONFIG, Spaces(VECTOR.obs, several))
