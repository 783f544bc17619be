"""Atari games in one line: frames as the literature has them, lives and clipping for training alone, the game's own
returns beneath, the same from EnvPool, and a clear line for whatever is missing."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from headrace.common.errors import UsageError
from headrace.common.types import Spaces
from headrace.launch.evaluate import play
from headrace.launch.load import load
from headrace.tasks import make_batch
from headrace.tasks.gymnasium_batch import GymnasiumBatch

#: Three lives, and rewards of ten and more.
PACMAN, BREAKOUT = "ALE/MsPacman-v5", "ALE/Breakout-v5"
NOOP = np.zeros(1, np.int64)


class Spied:
    """``env.step`` that keeps what the game rewarded and where its episodes were over."""

    def __init__(self, batch: GymnasiumBatch) -> None:
        self.game = batch.envs[0].unwrapped
        self.rewards, self.overs = [0.0], 0
        self._step, self.game.step = self.game.step, self.step

    def step(self, action):
        result = self._step(action)
        self.rewards[-1] += result[1]
        if result[2] or result[3]:
            self.rewards.append(0.0)
            self.overs += 1
        return result


def actions(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    while True:
        yield rng.integers(9, size=n)


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
def test_the_same_line_asks_both_for_the_same_frames(backend):
    batch = make_batch("ALE/Pong-v5", 2, backend=backend, wrappers=["atari"])
    assert (batch.spaces.obs_shape, batch.spaces.obs_dtype, batch.spaces.n_actions) == ((84, 84), "uint8", 6)
    assert batch.spaces == replace(Spaces.box((84, 84), "uint8", n_actions=6), marks_invalid=backend == "envpool")
    obs = batch.reset([1, 2])
    assert (obs.shape, obs.dtype) == ((2, 84, 84), np.uint8)
    before = obs
    for _ in range(60):
        obs = batch.step(np.array([2, 3])).obs
    assert (obs.shape, obs.dtype) == ((2, 84, 84), np.uint8)
    assert (obs != before).any()


def test_a_step_is_four_frames_and_a_game_begins_at_one_of_thirty():
    batch = make_batch(BREAKOUT, 1, wrappers=[{"name": "atari", "fire_reset": False}])
    ale = batch.envs[0].unwrapped.ale
    begins = []
    for seed in range(20):
        batch.reset([seed])
        begins.append(ale.getEpisodeFrameNumber())
    assert 1 <= min(begins) < max(begins) <= 30
    batch.step(NOOP)
    assert ale.getEpisodeFrameNumber() == begins[-1] + 4


def test_episodes_end_with_lives_and_rewards_are_clipped_but_the_games_own_are_told():
    batch = make_batch(PACMAN, 1, wrappers=["atari"])
    spied, told, ends, own_ends, seen = Spied(batch), [0.0], 0, 0, set()
    batch.reset([3])
    spied.rewards = [0.0]  # what came before the first step counts for nobody
    for action in actions(1):
        result = batch.step(action)
        told[-1] += result.own.reward[0]
        seen.add(float(result.reward[0]))
        ends += int(result.terminated[0])
        if result.own.ended[0]:
            own_ends += 1
            told.append(0.0)
        if own_ends == 2:
            break
    assert seen <= {-1.0, 0.0, 1.0}
    assert (ends, own_ends, spied.overs) == (6, 2, 2)  # three lives a game
    assert told[:2] == spied.rewards[:2]
    assert told[0] > 100  # of rewards of ten


def test_an_evaluation_plays_whole_games_for_their_own_points():
    config = load("cartpole-ppo", [f"task.env={PACMAN}", 'task.wrappers=["atari"]'])
    batch = GymnasiumBatch(PACMAN, 1, {}, ["atari"])
    batch.reset([7])
    points, goes_on, lives = 0.0, True, 0
    while goes_on:
        ((_, reward, terminated, truncated),) = batch.step_some(NOOP, [0])
        points += batch.own_reward(0, reward)
        if terminated or truncated:
            lives, goes_on = lives + 1, batch.goes_on(0) is not None
    assert lives == 3

    class Still:
        def act(self, obs, state, rng, explore):
            from headrace.algorithms.base import PolicyOutput

            return PolicyOutput(np.zeros(len(obs), np.int64), {}, state)

    assert play(config, Still(), [7]) == [points]


def test_games_that_wait_for_fire_are_begun():
    def lives_lost(**arguments) -> int:
        batch = make_batch(BREAKOUT, 1, wrappers=[{"name": "atari", **arguments}])
        batch.reset([1])
        return sum(int(batch.step(NOOP).terminated[0]) for _ in range(150))

    assert lives_lost(fire_reset=False) == 0  # the ball is never served
    assert lives_lost() > 4  # and here again for each life


def test_seeds_make_a_game_what_it_is():
    def frames(seed: int):
        batch = make_batch(PACMAN, 2, wrappers=["atari"])
        shown = [batch.reset([seed, seed + 1])]
        shown += [batch.step(action).obs for _, action in zip(range(300), actions(2), strict=False)]
        return np.stack(shown)

    np.testing.assert_array_equal(frames(5), frames(5))
    assert (frames(5) != frames(6)).any()


def test_envpool_tells_the_games_own_as_well():
    batch = make_batch(PACMAN, 1, backend="envpool", wrappers=["atari"], seed=1)
    assert set(make_batch("CartPole-v1", 1, backend="envpool").spaces.obs_shape) == {4}
    batch.reset([0])
    own, ends, own_ends, seen = 0.0, 0, 0, set()
    for action in actions(1):
        result = batch.step(action)
        own += result.own.reward[0]
        seen.add(float(result.reward[0]))
        ends += int(result.terminated[0])
        own_ends += int(result.own.ended[0])
        if own_ends:
            break
    assert seen <= {-1.0, 0.0, 1.0}
    assert ends == 3
    assert own > 100


# --- what is missing or wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "says"),
    [("ale_py", r"task\.env 'ALE/Pong-v5': Atari games need ale-py; pip install 'headrace\[atari\]'"),
     ("cv2", r"'atari' needs OpenCV to shrink frames; pip install 'headrace\[atari\]'")],
)  # fmt: skip
def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch, missing, says):
    monkeypatch.setitem(sys.modules, missing, None)  # what Python itself keeps for "cannot be imported"
    with pytest.raises(UsageError, match=says) as caught:
        make_batch("ALE/Pong-v5", 1, wrappers=["atari"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env_id", "options", "says"),
    [
        ("CartPole-v1", {"wrappers": ["atari"]}, "for the games of ale-py, .* this is CartPole"),
        ("ALE/Pong-v5", {"wrappers": [{"name": "atari", "frame_skp": 3}]}, "takes no frame_skp; it takes frame_skip"),
        ("ALE/Pong-v5", {"wrappers": ["atari"], "kwargs": {"frameskip": 4}}, "Disable frame-skipping"),
        ("ALE/Pnog-v5", {"wrappers": ["atari"]}, "Pnog"),
        ("ALE/Pong-v5", {"backend": "envpool"}, r'use task.wrappers = \["atari"\]'),
        ("ALE/Pong-v5", {"backend": "envpool", "wrappers": ["atari", "ClipReward"]}, "and nothing else"),
        ("ALE/Pnog-v5", {"backend": "envpool", "wrappers": ["atari"]}, "EnvPool does not have it"),
        ("CartPole-v1", {"wrappers": ["atarii"]}, "atari is the usual preprocessing"),
    ],
)  # fmt: skip
def test_what_is_no_such_game_or_argument_is_one_clear_line(env_id, options, says):
    with pytest.raises(UsageError, match=says) as caught:
        make_batch(env_id, 1, **options)
    assert "\n" not in str(caught.value)
