"""headrace report: which runs, which curve, which floor; and every command of docs/report.md, typed as it stands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.common.types import MASK, Field, Spaces
from headrace.launch.cli import main
from headrace.launch.load import load
from headrace.launch.report.adapt import Change
from headrace.launch.report.random_policy import UniformPolicy

from .runs import headrace

PAGE = Path(__file__).resolve().parents[2] / "docs" / "report.md"


def typed(folder: Path) -> list[tuple[str, str, str]]:
    """What is typed on the page, in its order: (line, stdout, stderr)."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    done = []
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        ran = headrace(*shlex.split(line.removeprefix("$ headrace ")), cwd=folder)
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
        done.append((line, ran.stdout, ran.stderr))
    return done


@pytest.mark.timeout(400)
def test_what_the_page_says_is_done_as_it_stands(tmp_path: Path) -> None:
    done = typed(tmp_path)
    table = next(out for line, out, _ in done if "report" in line)
    assert "judged by greedy evaluation of snapshots (seed 0, 1)" in table
    assert "not known   not asked" in table
    assert (tmp_path / "cartpole-0" / "report.html").read_text().count("data:image/svg+xml") == 6, "of the last one"
    (adapt, _, trained), (again, out, untrained) = [row for row in done if "--adapt" in row[0]]
    assert "training after the change" in trained
    assert "training after the change" not in untrained, "kept in the run: a second report trains nothing"
    assert adapt in again, "the second one is the first, as JSON"
    found = json.loads(out)
    verdicts = {figure["name"]: figure["verdict"] for figure in found["figures"]}
    assert verdicts.pop("spread_over_seeds") == "unknown", "of one seed"
    assert set(verdicts.values()) <= {"reached", "missed"}
    assert 15 < found["floor_return"] < 30, "CartPole by random actions"
    (seed,), (adapted,) = found["seeds"], found["adapted"]
    assert seed["source"] == "snapshots"
    assert seed["curve"][0]["env_steps"] == 0
    assert seed["final_return"] == seed["curve"][-1]["mean"] > 100
    assert seed["curve"][-1]["env_steps"] == seed["env_steps"] >= 40_000
    assert adapted["before"] == seed["final_return"]
    assert adapted["curve"][0]["env_steps"] == 0, "first of all the agent as it was"
    assert adapted["goal"] == pytest.approx((adapted["before"] + found["floor_return"]) / 2)
    assert adapted["curve"][0]["mean"] < adapted["goal"]
    assert len(adapted["curve"]) > 1
    assert Path(adapted["run_dir"]).parent == tmp_path / "cartpole-0" / "report" / "adapt"


# --- without a training: directories as they may be -----------------------------------------------------------------


def made(folder: Path, *overrides: str, preset: str = "cartpole-ppo") -> Path:
    """A run directory as `train` leaves it, but for what it learnt."""
    folder.mkdir()
    (folder / "config.toml").write_text(load(preset, overrides).to_toml())
    return folder


def evaluated(folder: Path, *found: dict[str, Any]) -> None:
    rows = [{"version": 1, "interval95": None, "episodes": 0, "returns": [], **row} for row in found]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"mean": 1')


def row(version: int, env_steps: int, **more: Any) -> str:
    always = {"time_s": float(version), "version": version, "env_steps": env_steps, "total_steps": 100_000,
              "episodes": 1, "return_mean": 480.0, "length_mean": 1.0, "steps_per_s": 1.0, "staleness_mean": 0.0,
              "staleness_max": 0, "rejected": {}, "phases": {}, "train": {}}  # fmt: skip
    return json.dumps({**always, **more}) + "\n"


def report(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["report", *words, "--floor", "20", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_evaluations_during_training_are_what_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One undone by a resume does not count, and one that knows its version only stands where a row has it."""
    run = made(tmp_path / "run")
    evaluated(run, {"mean": 100.0, "version": 2, "env_steps": 2000}, {"mean": 480.0, "version": 9, "env_steps": 9000},
              {"mean": 200.0, "version": 5, "env_steps": None, "returns": []}, {"mean": 490.0, "version": 90},
              {"mean": 476.0, "version": 40, "env_steps": 40_000})  # fmt: skip
    (run / "metrics.jsonl").write_text(row(4, 4096) + row(6, 6144) + row(40, 40_960))
    found = report(capsys, str(run))
    (seed,) = found["seeds"]
    assert seed["source"] == "evaluations"
    assert [(p["env_steps"], p["mean"]) for p in seed["curve"]] == [(2000, 100.0), (6144, 200.0), (40_000, 476.0)]
    assert found["figures"][0]["value"] == 40_000
    assert found["figures"][0]["verdict"] == "reached"
    assert found["target_from"] == "CartPole-v1's reward_threshold in Gymnasium"


def test_what_actors_report_is_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "run")
    (run / "metrics.jsonl").write_text(row(4, 4096, return_mean=30.0) + row(6, 60_000))
    found = report(capsys, str(run))
    assert found["seeds"][0]["source"] == "training"
    assert "judged by what actors report, not by greedy evaluation" in found["figures"][0]["note"]
    assert found["figures"][0]["verdict"] == "missed"
    assert found["seeds"][0]["final_return"] is None


def test_a_folder_of_seeds_is_its_runs_in_the_order_of_their_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (10, 2):
        run = made(tmp_path / f"seed-{seed}", f"run.seed={seed}", f"run.id=run-{seed}")
        evaluated(run, {"mean": 480.0, "env_steps": 1000 * seed})
    (tmp_path / "seeds.png").write_text("")
    found = report(capsys, str(tmp_path))
    assert [seed["seed"] for seed in found["seeds"]] == [2, 10]
    assert found["figures"][0]["value"] == 10_000
    assert Path(found["html"]) == tmp_path / "report.html"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["own"], "nothing says at which return poles:Pole counts as solved"),
        (["one", "other"], "are not seeds of one config: algorithm.gamma is 0.99 in the one and 0.98 in the other"),
        (["one", "one"], "is named twice"),
        (["nothing"], "no such directory"),
        (["."], "is no run directory"),
        (["one", "--target", "10", "--floor", "20"], "the floor 20 is not below the target 10"),
        (["one", "--floor", "nan"], "--floor nan: a number"),
        (["one", "--episodes", "0"], "--episodes and --adapt-steps are at least 1"),
        (["one", "--adapt-share", "0.9"], "says when an agent is back from the change of --adapt"),
        (["one", "--html", "missing/x.html"], "name a file in a directory that is there"),
        (["one", "--floor", "1", "--adapt", "run.seed=3"], "leaves the task as it was"),
        (["one", "--floor", "1", "--adapt", "gravity"], "write section.key=value"),
        (["one", "--floor", "1", "--adapt", "task.kwargs={gravity=3.0}"], "cannot be made"),
        (["one", "--floor", "1", "--adapt", 'task.wrappers=[{name="headrace.tasks.changed:Changed", mass=3.0}]'],
         "Changed sets mass = 3.0; CartPoleEnv holds these numbers: force_mag, gravity"),
        (["one", "--floor", "1"], "has neither evaluations nor snapshots nor rows nor a checkpoint yet"),
    ],
)  # fmt: skip
def test_what_cannot_be_reported_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made(tmp_path / "one")
    made(tmp_path / "other", "algorithm.gamma=0.98", "run.seed=1")
    (tmp_path / "poles.py").write_text("from gymnasium.envs.classic_control import CartPoleEnv as Pole\n")
    made(tmp_path / "own", "task.env=poles:Pole")
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    assert main(["report", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


# --- the random policy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "shape"),
    [(Field("int64", below=3), ()), (Field("int64", (2,), below=(3, 2)), (2,)), (Field("float32", (2,)), (2,))],
)
def test_every_action_is_as_likely(action: Field, shape: tuple[int, ...]) -> None:
    n = 12_000
    policy = UniformPolicy(Spaces({"": Field("float32", (4,))}, action), np.random.default_rng(0))
    drawn = policy.act(np.zeros((n, 4), np.float32), None, np.random.default_rng(0), explore=False).action
    assert drawn.shape == (n, *shape)
    if not action.choices:
        assert drawn.dtype == np.float32
        assert np.allclose([drawn.mean(), drawn.std()], [0, 1 / np.sqrt(3)], atol=0.02)
        return
    for column, choices in zip(drawn.reshape(n, -1).T, action.choices, strict=True):
        assert np.allclose(np.bincount(column, minlength=choices) / n, 1 / choices, atol=0.02)


def test_only_allowed_actions_are_drawn() -> None:
    mask = np.tile([True, False, True], (3000, 1))
    spaces = Spaces({"": Field("float32", (4,)), MASK: Field("bool", (3,))}, Field("int64", below=3))
    obs = {"": np.zeros((3000, 4), np.float32), MASK: mask}
    drawn = UniformPolicy(spaces, np.random.default_rng(0)).act(obs, None, np.random.default_rng(0), explore=False)
    assert np.allclose(np.bincount(drawn.action, minlength=3) / 3000, [0.5, 0, 0.5], atol=0.04)


# --- the goal after a change ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "goal"), [(None, 200.0), (1.0, 250.0), (0.5, 25.0)])
def test_an_agent_is_back_at_the_target_or_at_a_share_of_what_it_had(share: float | None, goal: float) -> None:
    """Above the floor: half of the way from -200 to 250 is 25."""
    change = Change(("task.kwargs.gravity=-5.0",), 1000, target=200.0, floor=-200.0, share=share)
    assert change.goal(before=250.0) == goal
