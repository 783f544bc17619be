"""Dict observations, masks and several actions through real commands: in lockstep, exported, refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnxruntime
import pytest

from headrace.launch.load import load
from headrace.launch.serial import run_serial
from tests.launch.runs import headrace, train
from tests.launch.test_lockstep import assert_equal, processes, serial
from tests.tasks.named_envs import Everything

ZOO = "tests.tasks.named_envs"
EVERYTHING = [f"task.env={ZOO}:Everything", 'run.id="lockstep-by-name"']
SEEN = ["algorithm.network=impala_cnn", "algorithm.hidden=[16]", "actors.envs=2", "actors.fragment_steps=16",
        "run.total_steps=320"]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2])
def test_a_dict_with_a_mask_is_the_serial_runners_bit_for_bit(tmp_path: Path, count: int) -> None:
    wanted = serial("cartpole-ppo", *EVERYTHING, *SEEN)
    assert wanted[1]["version"] == 5
    assert_equal(processes("cartpole-ppo", tmp_path / "run", count, *EVERYTHING, *SEEN), wanted)


@pytest.mark.parametrize(("preset", "told"), [("cartpole-dqn", "info"), ("cartpole-grpo", "method")])
def test_in_replay_and_groups_it_is_too(tmp_path: Path, preset: str, told: str) -> None:
    more = [*EVERYTHING, "task.kwargs.camera=false", f"task.kwargs.told={told}", "run.total_steps=2000"]
    wanted = serial(preset, *more)
    assert wanted[1]["version"] >= 10
    assert wanted[1]["rejected"] == {}
    assert_equal(processes(preset, tmp_path / "run", 2, *more), wanted)


@pytest.mark.parametrize("kind", ["multi_discrete", "multi_binary", "box"])
def test_several_actions_are_trained_serially(kind: str) -> None:
    learner = run_serial(load("cartpole-ppo", [
        f"task.env={ZOO}:taking", f"task.kwargs.space={kind}", "run.total_steps=2048", "learner.max_staleness=0",
        "learner.device=cpu", "actors.envs=4", "actors.fragment_steps=32"]))  # fmt: skip
    assert learner.counters.env_steps >= 2048
    assert learner.counters.rejected == {}


def test_a_dict_policy_is_exported_and_obeys_the_mask(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("cartpole-ppo", run, [*EVERYTHING, *SEEN, "learner.device=cpu"])
    done = headrace("export", str(run), str(tmp_path / "policy.onnx"))
    assert done.returncode == 0, done.stderr
    policy = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    env = Everything()
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        over = False
        while not over:  # an action that is not allowed would raise
            (action,) = policy.run(["action"], inputs(obs))
            obs, _, terminated, truncated, _ = env.step(action[0])
            over = terminated or truncated


def inputs(obs: dict[str, Any]) -> dict[str, Any]:
    """As docs/export.md has it: an input for each, a batch of one."""
    flat = {"arm.angles": np.float32(obs["arm"]["angles"]), "arm.grip": obs["arm"]["grip"],
            "dials.0": obs["dials"][0], "dials.1": obs["dials"][1], "gear": np.int64(obs["gear"]),
            "camera": obs["camera"], "action_mask": obs["action_mask"] > 0}  # fmt: skip
    return {f"obs.{name}": np.asarray(part)[None] for name, part in flat.items()}


@pytest.mark.parametrize(
    ("preset", "sets", "says"),
    [
        ("cartpole-ppo", ["lying", "how='many'"], "shows what no record can hold: 85 arrays are over 64"),
        ("cartpole-ppo", ["lying", "how='long'"], "shows what no record can hold: array name 'final_obs.x"),
        ("cartpole-ppo", ["lying", "how='text'"], "of 'says' is not supported; a Box of"),
        ("cartpole-ppo", ["lying", "how='long mask'"], "has 3 entries; its actions have 2 choices"),
        ("cartpole-ppo", ["Everything", "camera=true"], "'mlp' takes vectors, and observations are arm.angles"),
        ("cartpole-dqn", ["taking", "space='multi_discrete'"], "DQN needs a Discrete action space"),
        ("pendulum-sac", ["taking", "space='multi_binary'"], "SAC needs a Box action space"),
        ("cartpole-ppo", ["taking", "space='whole'"], "a MultiDiscrete says how many each has"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_one_line_at_the_start(
    tmp_path: Path, preset: str, sets: list[str], says: str
) -> None:
    env, kwarg = sets
    done = headrace("train", preset, "--run-dir", str(tmp_path / "run"), "--set", f"task.env={ZOO}:{env}",
                    "--set", f"task.kwargs.{kwarg}")  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert says in line
    assert f"{ZOO}:{env}" in line or "task.env" in line or "algorithm.network" in line
    assert not (tmp_path / "run").exists()


def test_an_environment_that_lies_ends_the_actor_with_one_line(tmp_path: Path) -> None:
    lies = ["--set", f"task.env={ZOO}:lying", "--set", "task.kwargs.how=discrete", "--set", "learner.max_staleness=0"]
    done = headrace("train", "cartpole-ppo", "--run-dir", str(tmp_path / "run"), *lies)
    assert done.returncode != 0
    assert "showed an observation 3, which is not in its observation space Discrete(3)" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_gymnasium_s_taxi_is_masked() -> None:
    """Its masks come with info, which is known at the first reset only."""
    learner = run_serial(load("cartpole-ppo", ["task.env=Taxi-v4", "run.total_steps=2048", "learner.max_staleness=0",
                                               "learner.device=cpu"]))  # fmt: skip
    assert "obs.action_mask" in learner.algorithm.schema.fields
    assert learner.counters.rejected == {}
    assert gymnasium.make("Taxi-v4").observation_space.n == 500
