"""headrace.load's agent: what it takes, what it gives, what it remembers. `evaluate` is what it must agree with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnxruntime
import pytest

import headrace
from headrace.common.errors import UsageError
from headrace.common.types import Weights
from headrace.launch.build import Blueprint
from headrace.launch.evaluate import play
from tests.launch.runs import train

ZOO = "tests.tasks.named_envs"
SMALL = {"learner.device": "cpu", "actors.envs": 2, "actors.fragment_steps": 16, "algorithm.hidden": [16]}
LSTM = {"algorithm.memory": "lstm", "algorithm.memory_width": 8}
SEEDS = (3, 4, 5)


def trained(preset: str, settings: dict[str, Any]) -> headrace.SerialRun:
    return headrace.train_serial(preset, {**SMALL, **settings}, versions=1)


def played(agent: headrace.Agent, seed: int) -> float:
    """The return of one episode, as a user would play it."""
    env, total, over = agent.make_env(), 0.0, False
    obs, _ = env.reset(seed=seed)
    agent.reset()
    while not over:
        mask = env.get_wrapper_attr("action_masks")() if env.has_wrapper_attr("action_masks") else None
        action = agent.act(obs, action_mask=mask)
        assert action in agent.action_space
        obs, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    return total


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("cartpole-ppo", {}),
        ("cartpole-recurrent-ppo", LSTM),
        ("pendulum-sac", {"algorithm.capacity": 2000}),
        ("cartpole-ppo", {"task.env": "Pendulum-v1", **LSTM}),
        ("cartpole-ppo", {"task.env": f"{ZOO}:Everything", "task.kwargs": {"camera": False}}),
        ("cartpole-ppo", {"task.env": f"{ZOO}:Everything", "task.kwargs": {"camera": False, "told": "method"}}),
        ("cartpole-ppo", {"task.env": f"{ZOO}:taking", "task.kwargs": {"space": "multi_discrete"}}),
        ("cartpole-ppo", {"task.env": f"{ZOO}:taking", "task.kwargs": {"space": "multi_binary"}}),
    ],
    ids=["discrete", "recurrent", "continuous", "recurrent-continuous", "dict", "mask-apart", "several", "binary"],
)
def test_it_plays_as_the_evaluation_does(preset: str, settings: dict[str, Any]) -> None:
    serial = trained(preset, settings)
    tensors, scalars = serial.learner.algorithm.weights()
    policy = Blueprint(serial.config).policy()
    policy.load(Weights("", 0, 1, tensors, scalars))
    agent = serial.agent()
    assert [played(agent, seed) for seed in SEEDS] == pytest.approx(play(serial.config, policy, SEEDS), abs=1e-4)


def test_actions_are_in_the_environment_s_own_units_for_one_and_for_many() -> None:
    agent = trained("pendulum-sac", {"algorithm.capacity": 2000}).agent()
    obs = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 8.0], [-1.0, 0.0, -8.0]])  # float64: as people write them
    many = agent.act(obs)
    assert (many.shape, many.dtype) == ((3, 1), np.float32)
    np.testing.assert_allclose(many, [agent.act(one) for one in obs], rtol=1e-5, atol=1e-6)
    explored = np.concatenate([agent.act(obs, explore=True) for _ in range(50)])
    assert 1.0 < np.abs(explored).max() <= 2.0, "Pendulum takes -2 to 2, policies act in -1 to 1"

    agent = trained("cartpole-ppo", {}).agent()
    one = agent.act([0.0, 0.0, 0.1, 0.0])
    assert (one.shape, one.dtype, one in agent.action_space) == ((), np.int64, True)
    assert agent.act(np.zeros((5, 4), np.float32)).shape == (5,)
    assert {int(a) for a in agent.act(np.zeros((100, 4)), explore=True)} == {0, 1}


def test_episodes_side_by_side_are_remembered_each_for_itself() -> None:
    serial = trained("cartpole-ppo", {"task.env": "Pendulum-v1", **LSTM})
    agent, obs = serial.agent(), np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    found = [agent.act(both) for both in obs[:3]]
    agent.reset([False, True])
    found += [agent.act(both) for both in obs[3:]]
    for column, begins in ((0, ()), (1, (3,))):
        alone = serial.agent()
        for t in range(6):
            if t in begins:
                alone.reset()
            np.testing.assert_allclose(alone.act(obs[t, column]), found[t][column], rtol=1e-4, atol=1e-6)
    agent.reset()
    assert not np.allclose(agent.act(obs[5]), found[5]), "what was remembered mattered"
    with pytest.raises(UsageError, match=r"3 observations, and 2 episodes are remembered; reset\(\) first"):
        agent.act(np.zeros((3, 3)))
    with pytest.raises(UsageError, match="of 2 episodes"):
        agent.reset([2])


def test_dicts_side_by_side_are_those_of_gymnasium_s_vectors() -> None:
    agent = trained("cartpole-ppo", {"task.env": f"{ZOO}:Everything", "task.kwargs": {"camera": False}}).agent()
    envs = gymnasium.vector.SyncVectorEnv([agent.make_env] * 3)
    shown, _ = envs.reset(seed=[3, 4, 5])
    actions = agent.act(shown)
    assert actions.shape == (3,)
    assert shown["action_mask"][np.arange(3), actions - 10].all()  # Discrete(4, start=10)
    envs.close()


@pytest.mark.parametrize(
    ("obs", "mask", "says"),
    [
        (np.zeros(3), None, r"has shape \(3,\); \[4\] is right for one, \['n', 4\] for many"),
        (np.zeros((2, 2, 4)), None, r"has shape \(2, 2, 4\)"),
        (["a"] * 4, None, "which is no float32"),
        (np.zeros(4), [True, True], "tells no action_mask apart"),
    ],
)
def test_an_observation_that_is_none_is_one_line(obs: Any, mask: Any, says: str) -> None:
    agent = trained("cartpole-ppo", {}).agent()
    with pytest.raises(UsageError, match=says):
        agent.act(obs, action_mask=mask)


def test_named_observations_and_masks_that_are_none_are_one_line() -> None:
    agent = trained(
        "cartpole-ppo", {"task.env": f"{ZOO}:Everything", "task.kwargs": {"camera": False, "told": "info"}}
    ).agent()
    obs, info = agent.make_env().reset(seed=1)
    assert agent.act(obs, action_mask=info["action_mask"]) in agent.action_space
    for wrong, mask, says in (
        (obs, None, "hand it on as action_mask="),
        (obs, [1, 1], r"has shape \(2,\); \[4\]"),
        (obs, [0, 0, 0, 0], "allows nothing"),
        ({"gear": 1}, [1] * 4, "has no 'arm"),
        ({**obs, "gear": 4}, [1] * 4, "'gear' 4 is not in Discrete"),
        ({**obs, "gear": [1, 2]}, [1] * 4, "of different numbers of observations: .*gear 2"),
    ):
        with pytest.raises(UsageError, match=says):
            agent.act(wrong, action_mask=mask)


def test_a_run_s_agent_is_loaded_without_torch_and_exported(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("cartpole-ppo", run, ["run.total_steps=4096", "learner.device=cpu"], "--episodes", "2", "--no-gif")
    code = (
        "import headrace, sys\n"
        "agent, best = headrace.load(sys.argv[1]), headrace.load(sys.argv[1], best=True)\n"
        "assert agent.version == best.version > 0 and agent.env_steps >= 4096\n"
        "print(*[agent.act([x, 0.0, 0.1, -x]) for x in (-1.0, 0.0, 1.0)])\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "print(agent.export('policy.onnx'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    actions, file = done.stdout.splitlines()
    exported = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    obs = np.array([[x, 0.0, 0.1, -x] for x in (-1.0, 0.0, 1.0)], np.float32)
    assert [str(a) for a in exported.run(["action"], {"obs": obs})[0]] == actions.split()
    with pytest.raises(UsageError, match=r"name a file that ends in \.onnx"):
        headrace.load(run).export(tmp_path / "policy.txt")
    with pytest.raises(UsageError, match="nowhere: no such directory"):
        headrace.load(tmp_path / "nowhere")
