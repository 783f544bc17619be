"""Evaluation during training: docs/evaluation.md as it stands, and what the evaluator must never do to a run."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from headrace.algorithms import ppo
from headrace.algorithms.base import Policy
from headrace.common.errors import EnvironmentFailed, UsageError
from headrace.common.metrics import Metrics
from headrace.common.seeding import selection_seeds
from headrace.common.types import Spaces, Weights
from headrace.launch import best, evaluate
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.finish import finish
from headrace.launch.load import load
from headrace.launch.run_evaluator import Evaluator
from headrace.launch.run_files import stored_config
from headrace.launch.solved import stop_at
from headrace.observe.evaluations import read_evaluations, short
from headrace.observe.rows import Tail, read_rows

from .runs import headrace

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The run directory after everything on the page was typed, and what each command said."""
    folder = tmp_path_factory.mktemp("page")
    lines = [line for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()]
    assert len(lines) == 4
    said = []
    for line in lines:
        done = headrace(*shlex.split(line.removeprefix("$ headrace ")), cwd=folder, timeout_s=100.0)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    return folder / "pole", said


@pytest.fixture(scope="module")
def run(page: tuple[Path, list[str]]) -> Path:
    return page[0]


def test_a_training_is_evaluated_while_it_goes_on(page: tuple[Path, list[str]]) -> None:
    run, (said, *_) = page
    found, rows = read_evaluations(run / "evaluations.jsonl"), read_rows(run / "metrics.jsonl")
    assert found, (run / "logs" / "evaluator-0.log").read_text()
    for one in found:
        assert one["episodes"] == len(one["returns"]) == 20
        assert one["mean"] == pytest.approx(np.mean(one["returns"]))
        assert one["env_steps"] == one["version"] * 1024, "two fragments of 8 * 64 steps are a version"
        assert 0 < one["time_s"] <= rows[-1]["time_s"]
    assert "evaluation" not in rows[0]
    newest = [short(one) for one in found[-2:]]  # the last one may have come after the last row
    assert rows[-1]["evaluation"] in newest
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    shown = {event.step: event.value for event in board.Scalars("evaluation/return_mean")}
    assert shown == {one["env_steps"]: pytest.approx(one["mean"]) for one in found if one["env_steps"] in shown}
    assert len(shown) >= len(found) - 1
    assert re.search(r"greedy \d+\.\d ± \d+\.\d at [\d,]+ steps", said)


def test_best_is_what_evaluated_best(run: Path) -> None:
    means = {one["version"]: one["mean"] for one in read_evaluations(run / "evaluations.jsonl")}
    weights = evaluate.load_weights(stored_config(run), run, best.path_of(run))
    score = best.score(run)
    assert score is not None
    assert score >= max(means.values())
    assert weights.env_steps == weights.version * 1024
    assert means.get(weights.version, score) == score


def test_a_run_ends_when_the_evaluator_says_that_it_is_solved(page: tuple[Path, list[str]]) -> None:
    run, (_, _, _, again) = page
    found = read_evaluations(run / "evaluations.jsonl")
    solved = [one["solved"] for one in found]
    first = solved.index(True)
    assert len(found) - first <= 2, "another one was under way, at most"
    assert found[first]["mean"] - found[first]["interval95"] >= 475
    result = json.loads((run / "result.json").read_text())
    assert result["ended_by"] == "solved"
    assert found[-1]["env_steps"] <= result["env_steps"] < 2_000_000
    assert result["evaluation"]["version"] * 1024 == result["env_steps"], "of the last checkpoint"
    assert set(result["versions"]) >= {"python", "headrace", "torch", "numpy", "gymnasium"}
    assert result["hardware"]["cores"] >= 1
    assert result["seeds"] == {"run": 0, "evaluation_first": 2**31, "selection_first": 3 * 2**30}
    assert (run / "returns.png").exists()
    assert "finished" in headrace("status", str(run)).stdout.splitlines()[0]
    assert "is finished: solved after" in again


def untrained(config: Config) -> Policy:
    tensors, scalars = ppo.PPO(ppo.Config(), Spaces.box((4,), n_actions=2), seed=0).weights()
    policy: Policy = Blueprint(config).policy()
    policy.load(Weights("r", 1, 3, tensors, scalars))
    return policy


def test_rewards_that_are_no_number_are_nobody_s_return() -> None:
    config = load("cartpole-ppo", ["task.env=tests.tasks.bad_envs:NanReward"])
    policy = untrained(config)
    with pytest.raises(EnvironmentFailed, match=r"bad_envs:NanReward'.* seed 7 add up to nan"):
        evaluate.play(config, policy, [7, 8])


def test_an_episode_that_does_not_end_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluate, "_LONG_STEPS", 5)
    config = load("cartpole-ppo", [])
    evaluate.play(config, untrained(config), [7, 8])
    (said,) = caplog.messages
    assert said.startswith("CartPole-v1: 2 episodes of the evaluation go on after 5 steps; what never ends needs ")


def test_one_episode_has_no_interval_in_words_nor_in_json() -> None:
    found = evaluate.Evaluation((5.0,), 3, None)
    assert found.text == "5.0"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["interval95"] is None
    assert evaluate.Evaluation((5.0, 7.0), 3, None).text == "6.0 ± 2.0"


@pytest.mark.parametrize(("before", "replaced"), [(-1.0, True), (1e9, False)])
def test_at_the_end_the_last_policy_replaces_a_worse_best_only(run: Path, before: float, replaced: bool) -> None:
    config = stored_config(run)
    weights = evaluate.load_weights(config, run)
    best.keep(run, Weights("", 0, 0, weights.tensors, weights.scalars, 0), {"mean": before})
    finish(config, run, 2, gif=False)
    kept = evaluate.load_weights(config, run, best.path_of(run))
    assert kept.version == (weights.version if replaced else 0)


def test_a_window_needs_a_screen(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = headrace("evaluate", str(run), "--render", "--episodes", "2")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "--render: this machine has no screen" in done.stderr
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing")
    done = headrace("evaluate", str(run), "--render", "--episodes", "2")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "--render: no window: " in done.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["run.evaluation_share=0"], "run.evaluation_share = 0 says there is none"),
        (["task.env=Pendulum-v1", "algorithm.name=sac"], "nothing says when Pendulum-v1 is solved"),
    ],
)
def test_what_nobody_could_judge_is_refused(settings: list[str], says: str) -> None:
    preset = "pendulum-sac" if len(settings) > 1 else "cartpole-ppo"
    with pytest.raises(UsageError, match=says):
        stop_at(load(preset, [*settings[: 1 if preset == "cartpole-ppo" else 0], "run.stop_when_solved=true"]))


def test_solved_is_the_lower_end_of_the_interval_and_never_the_mean(tmp_path: Path) -> None:
    tensors, scalars = ppo.PPO(ppo.Config(), Spaces.box((4,), n_actions=2), seed=0).weights()
    weights, metrics = Weights("r", 1, 3, tensors, scalars, 96, 0.5), Metrics("evaluator")

    def judged(goal: float, folder: Path) -> dict[str, object]:
        folder.mkdir()
        config = load("cartpole-ppo", [f"run.stop_when_solved={goal}"])
        evaluator = Evaluator(config, folder, 20, metrics, lambda: None)
        evaluator.evaluate(weights)
        evaluator.close()
        (one,) = read_evaluations(folder / "evaluations.jsonl")
        return one

    first = judged(0.0, tmp_path / "low")
    assert (first["solved"], first["env_steps"], first["time_s"]) == (True, 96, 0.5)
    assert isinstance(first["mean"], float)
    config = load("cartpole-ppo", [])
    policy = Blueprint(config).policy()
    policy.load(weights)
    again = float(np.mean(evaluate.play(config, policy, selection_seeds(20, 20))))
    assert judged(min(first["mean"], again) - 0.01, tmp_path / "mean")["solved"] is False, "both means reach it"


CANNOT_BE_EVALUATED = """
from gymnasium.envs.classic_control import CartPoleEnv

class Shy(CartPoleEnv):
    def reset(self, *, seed=None, options=None):
        if seed is not None and seed >= 3 * 2**30:
            raise RuntimeError("not while I am watched")
        return super().reset(seed=seed, options=options)

def make():
    from gymnasium.wrappers import TimeLimit
    return TimeLimit(Shy(), 500)
"""


def test_an_evaluator_that_dies_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "shy.py").write_text(CANNOT_BE_EVALUATED)
    sets = ["task.env=shy:make", "run.total_steps=900_000_000", "learner.device=cpu"]
    words = [word for setting in sets for word in ("--set", setting)]
    argv = [sys.executable, "-m", "headrace.launch.cli", "train", "cartpole-ppo", "--run-dir", "run", *words]
    said, rows = tmp_path / "said.txt", Tail(tmp_path / "run" / "metrics.jsonl")
    with said.open("w") as out, subprocess.Popen(argv, cwd=tmp_path, stdout=out, stderr=out) as train:
        try:
            wait_until(lambda: "starting it again in 15 s" in said.read_text())
            rows.new_rows()
            wait_until(lambda: bool(rows.new_rows()))
            train.send_signal(signal.SIGINT)
            assert train.wait(60) == 0, said.read_text()
        finally:
            train.kill()
    assert "evaluator-0 died (exit code 1): headrace evaluator: " in said.read_text()
    assert "not while I am watched" in said.read_text()


def wait_until(condition: Callable[[], bool], timeout_s: float = 100.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
