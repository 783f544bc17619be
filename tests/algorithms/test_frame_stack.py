"""Stacked frames: what learner and replay show their networks is what the actor showed its own, to the bit, over the
ends of episodes and of fragments, while every frame is sent once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.actor.env_rollout import EnvRollout
from headrace.actor.rollout_worker import Timings
from headrace.algorithms import dqn, frame_stack, ppo
from headrace.algorithms.base import Batch, NetworkOptions, PolicyOutput, Replay
from headrace.algorithms.images import ImpalaCNN, NatureCNN
from headrace.common import codec
from headrace.common.errors import UsageError
from headrace.common.types import Spaces, Trajectory, Weights
from headrace.launch.load import load
from headrace.learner.experience import join_on_policy
from headrace.learner.replay import ReplayBuffer
from headrace.tasks import make_batch
from headrace.tasks.base import EnvBatch
from headrace.tasks.gymnasium_batch import GymnasiumBatch

FRAMES = Spaces.box((36, 36), "uint8", n_actions=3)


class Film(gymnasium.Env):
    """Never shows the same frame twice, and never a zero; ends after ``length`` steps, by termination or not."""

    observation_space = gymnasium.spaces.Box(0, 255, (6, 5), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, length: int = 3, terminates: bool = True, seed: int = 0) -> None:
        self.length, self.terminates, self.rng = length, terminates, np.random.default_rng(seed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.count = 0
        return self._frame(), {}

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.count += 1
        over = self.count == self.length
        return self._frame(), float(self.count), over and self.terminates, over and not self.terminates, {}

    def _frame(self) -> Any:
        return self.rng.integers(1, 256, (6, 5), np.uint8)


class Watches:
    """Stands where the network's policy does, and keeps what it was shown."""

    def __init__(self, actions: int) -> None:
        self.shown: list[np.ndarray] = []
        self.rng, self.actions = np.random.default_rng(0), actions

    def load(self, weights: Weights) -> None: ...

    def act(self, obs: np.ndarray, state: Any, rng: Any, explore: bool) -> PolicyOutput:
        assert state is None, "the policy within has no memory"
        self.shown.append(obs.copy())
        n = len(obs)
        return PolicyOutput(self.rng.integers(self.actions, size=n), {"behaviour_logp": np.zeros(n, np.float32)})


def collected(batch: EnvBatch, k: int, steps: int, fragments: int) -> tuple[np.ndarray, list[Trajectory]]:
    """What the actor's network was shown in each step, and the fragments that it sent, after a journey as bytes."""
    config, inner = ppo.Config(frame_stack=k), Watches(batch.spaces.n_actions)
    policy, schema = frame_stack.acting(inner, batch.spaces, k), ppo.schema(config, batch.spaces)
    rollout = EnvRollout(batch, policy, schema, steps, list(range(len(batch))), np.random.default_rng(0))
    sent = []
    for seq in range(fragments):
        arrays = rollout.collect(seq, Timings()).arrays
        one = Trajectory("run", 1, 0, 1, seq, 0, seq, "task", schema.hash, steps, len(batch), arrays)
        sent.append(codec.decode(codec.encode(one, 1 << 26), 1 << 26))
    return np.stack(inner.shown), sent


def stacked(arrays: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    obs, final = frame_stack.shown(Batch(arrays), k, torch.from_numpy)
    return obs.numpy(), final.numpy()


@settings(max_examples=40, deadline=None)
@given(
    ends=st.lists(st.tuples(st.integers(1, 7), st.booleans()), min_size=1, max_size=3),
    k=st.integers(2, 5),
    steps=st.integers(1, 9),
)
def test_the_learner_stacks_what_the_actor_did(ends: list[tuple[int, bool]], k: int, steps: int) -> None:
    envs = [Film(length, terminates, seed) for seed, (length, terminates) in enumerate(ends)]
    seen, sent = collected(GymnasiumBatch.of(envs, "Film"), k, steps, 4)  # type: ignore[arg-type]
    schema = ppo.schema(ppo.Config(frame_stack=k), Spaces.box((6, 5), "uint8", n_actions=3))
    for number, fragment in enumerate(sent):
        obs, final = stacked(join_on_policy([fragment], schema).arrays, k)
        np.testing.assert_array_equal(obs[:-1], seen[number * steps : (number + 1) * steps])
        if number + 1 < len(sent):
            np.testing.assert_array_equal(obs[-1], seen[(number + 1) * steps])
        ended = fragment.arrays["terminated"] | fragment.arrays["truncated"]
        for row, (t, b) in enumerate(np.argwhere(ended)):  # one frame further in the same episode
            np.testing.assert_array_equal(final[row][:-1], obs[t, b][1:])
            np.testing.assert_array_equal(final[row][-1], fragment.arrays["final_obs"][row])


def test_zeros_stand_before_an_episode_and_the_newest_frame_is_last() -> None:
    seen, _ = collected(GymnasiumBatch.of([Film(3)], "Film"), 4, 8, 1)
    zeros = [int((stack == 0).all(axis=(1, 2)).sum()) for stack in seen[:, 0]]
    assert zeros == [3, 2, 1, 3, 2, 1, 3, 2]
    np.testing.assert_array_equal(seen[1, 0, -2], seen[0, 0, -1])


def test_fragments_side_by_side_keep_their_own() -> None:
    k, schema = 3, ppo.schema(ppo.Config(frame_stack=3), Spaces.box((6, 5), "uint8", n_actions=3))
    seen, sent = collected(GymnasiumBatch.of([Film(4), Film(5, seed=1)], "Film"), k, 6, 2)
    obs, _ = stacked(join_on_policy(sent, schema).arrays, k)
    np.testing.assert_array_equal(obs[:-1, :2], seen[:6])
    np.testing.assert_array_equal(obs[:-1, 2:], seen[6:])


def test_so_it_is_where_a_step_is_spent_on_a_reset() -> None:
    batch = make_batch("ALE/Breakout-v5", 2, backend="envpool", wrappers=["atari"], seed=1)
    schema = ppo.schema(ppo.Config(frame_stack=4), batch.spaces)
    seen, sent = collected(batch, 4, 33, 3)
    assert sum((~fragment.arrays["valid"]).sum() for fragment in sent) >= 4
    for number, fragment in enumerate(sent):
        obs, _ = stacked(join_on_policy([fragment], schema).arrays, 4)
        np.testing.assert_array_equal(obs[:-1], seen[number * 33 : (number + 1) * 33])


def test_replay_hands_out_what_the_actor_showed() -> None:
    k, steps = 4, 7
    seen, sent = collected(GymnasiumBatch.of([Film(5), Film(9, False, 1)], "Film"), k, steps, 6)
    shown = {stack[-1].tobytes(): stack for stack in seen.reshape(-1, *seen.shape[2:])}
    experience = dqn.Config(frame_stack=k, capacity=200, min_size=0).experience
    assert isinstance(experience, Replay)
    assert experience.stack == k
    buffer = ReplayBuffer(experience, np.random.default_rng(0))
    for fragment in sent:
        buffer.insert(fragment)
    arrays, checked = buffer.sample()[0].arrays, 0
    for stack in arrays["obs"]:
        np.testing.assert_array_equal(stack, shown[stack[-1].tobytes()])
    for stack in arrays["next_obs"]:
        if stack[-1].tobytes() in shown:  # not what an episode ended with, nor what the last fragment did
            np.testing.assert_array_equal(stack, shown[stack[-1].tobytes()])
            checked += 1
    assert checked > 50


def test_a_record_holds_each_frame_once_and_the_few_before_its_first() -> None:
    k, steps = 4, 20
    batch = GymnasiumBatch.of([Film(6), Film(9, seed=1)], "Film")
    schema, frame = ppo.schema(ppo.Config(frame_stack=k), batch.spaces), 6 * 5
    _, (_, fragment) = collected(batch, k, steps, 2)
    record = codec.encode(fragment, 1 << 20)
    held = Counter(record.count(one.tobytes()) for one in fragment.arrays["obs"].reshape(-1, 6, 5))
    assert held == {1: 2 * (steps + 1)}
    singles = {n: f for n, f in ppo.schema(ppo.Config(), batch.spaces).fields.items()}
    assert {n: f for n, f in schema.fields.items() if n != "state"} == singles
    assert fragment.arrays["state"].nbytes == 2 * (k - 1) * frame
    assert dqn.schema(dqn.Config(frame_stack=k), batch.spaces) == dqn.schema(dqn.Config(), batch.spaces)


# --- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NatureCNN, ImpalaCNN])
@pytest.mark.parametrize("shape", [(40, 40), (3, 40, 40), (40, 40, 3)])
def test_stacked_images_are_channels(kind: Any, shape: tuple[int, ...]) -> None:
    k, rng = 2, np.random.default_rng(1)
    net = kind((k, *shape), (8,), np.random.default_rng(0))
    obs = torch.from_numpy(rng.integers(0, 256, (5, k, *shape), np.uint8))
    planes = obs.movedim(-1, -3) if shape[-1] == 3 else obs
    planes = planes if len(shape) == 2 else planes.reshape(5, -1, 40, 40)
    same = kind(tuple(planes.shape[1:]), (8,), np.random.default_rng(0))
    with torch.no_grad():
        torch.testing.assert_close(net(obs), same(planes))


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("module", [ppo, dqn])
def test_an_actor_computes_what_is_learned(module: Any) -> None:
    config = module.Config(network="nature_cnn", hidden=(16,), frame_stack=3)
    learner = getattr(module, module.__name__.rsplit(".", 1)[1].upper())(config, FRAMES, seed=0)
    policy = module.policy(config, FRAMES)
    policy.load(Weights("run", 1, 0, *learner.weights()))
    rng, state = np.random.default_rng(0), None
    frames = rng.integers(0, 256, (5, 4, 36, 36), np.uint8)
    for obs in frames:
        acted = policy.act(obs, state, rng, explore=False)
        state = acted.state
    with torch.no_grad():
        stack = torch.from_numpy(frames[-3:]).transpose(0, 1)
        out = (learner.q if module is dqn else learner.pi.net)(stack)
    np.testing.assert_array_equal(acted.action, out.argmax(1).numpy())
    assert acted.state.shape == (4, 2, 36, 36)


def test_what_cannot_be_stacked_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"frame_stack = 4 stacks one image, and observations are float32\[4\]"):
        ppo.policy(ppo.Config(frame_stack=4), Spaces.box((4,), n_actions=2))
    with pytest.raises(UsageError, match=r"unknown key algorithm\.frame_stack"):
        load("pendulum-sac", ["algorithm.frame_stack=4"])
    assert not hasattr(NetworkOptions(), "frame_stack")
