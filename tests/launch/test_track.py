"""headrace track with the real packages, offline; each test is skipped where its tracker is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from headrace.launch.begun import Begun
from headrace.launch.children import beside
from headrace.launch.cli import main
from headrace.launch.load import load
from headrace.launch.run_dir import RunDir
from headrace.observe import trackers

from .runs import headrace

INSTALLED = {name: find_spec(name) is not None for name in ("wandb", "mlflow")}
wandb = pytest.mark.skipif(not INSTALLED["wandb"], reason="wandb is not installed")
mlflow = pytest.mark.skipif(not INSTALLED["mlflow"], reason="mlflow is not installed")


def row(env_steps: int) -> dict[str, object]:
    counts = {"version": env_steps // 100, "env_steps": env_steps, "total_steps": 300, "episodes": 1}
    figures = {"time_s": env_steps / 10, "return_mean": env_steps / 2, "length_mean": None, "steps_per_s": 10.0}
    return {
        **counts,
        **figures,
        "staleness_mean": 0.0,
        "staleness_max": 0,
        "rejected": {},
        "phases": {},
        "train": {"loss": 0.5},
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a run that has got to 200 steps."""
    folder = tmp_path / "a-run"
    folder.mkdir()
    (folder / "config.toml").write_text(load("cartpole-ppo", ["run.id=tracked", "run.seed=7"]).to_toml())
    append(folder / "metrics.jsonl", row(100), row(200))
    found = {"version": 1, "env_steps": 100, "mean": 20.5, "interval95": 1.5, "episodes": 2, "returns": [19.0, 22.0]}
    append(folder / "evaluations.jsonl", found)
    return folder


def append(path: Path, *lines: dict[str, object]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def track(run: Path, name: str) -> None:
    done = headrace("track", str(run), "--to", name, cwd=run.parent)
    assert done.returncode == 0, done.stdout + done.stderr


@mlflow
def test_mlflow_has_every_line_once_and_every_setting(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{run.parent}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    track(run, "mlflow")
    append(run / "metrics.jsonl", row(300))
    evaluation = {"mean": 30.0, "interval95": 2.0, "version": 3, "episodes": 2, "returns": []}
    (run / "result.json").write_text(json.dumps({"env_steps": 300, "evaluation": evaluation}))
    track(run, "mlflow")
    track(run, "mlflow")
    read = (
        "import sys, json; from mlflow import MlflowClient; client = MlflowClient(sys.argv[1])\n"
        "(found,) = client.search_runs([client.get_experiment_by_name('headrace').experiment_id])\n"
        "names = ('episodes/return_mean', 'evaluation/return_mean', 'final/return_mean')\n"
        "shown = {n: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, n)] for n in names}\n"
        "print(json.dumps([found.data.params['run.seed'], found.info.run_name, found.info.status, shown]))"
    )
    seed, name, status, shown = json.loads(python(read, uri))
    assert (seed, name, status) == ("7", "a-run", "FINISHED")
    assert shown == {
        "episodes/return_mean": [[100, 50.0], [200, 100.0], [300, 150.0]],
        "evaluation/return_mean": [[100, 20.5]],
        "final/return_mean": [[300, 30.0]],
    }


@wandb
def test_wandb_keeps_the_run_offline(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(run, "wandb")
    (kept,) = (run / "wandb").glob("offline-run-*-tracked/run-tracked.wandb")
    content = kept.read_bytes()
    for text in (b"episodes/return_mean", b"evaluation/return_mean", b"run.seed", b"a-run"):
        assert text in content, text
    assert json.loads((run / "trackers" / "wandb.json").read_text()) == {"rows": 2, "evaluations": 1}


@mlflow
def test_a_tracker_that_is_away_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = headrace("track", str(run), "--to", "mlflow", cwd=run.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith("headrace track: tracker mlflow: MlflowException: ")


def test_no_tracker_and_no_evaluator_is_needed(tmp_path: Path) -> None:
    """What becomes of such a process: tests/launch/test_supervisor.py."""
    config = load("cartpole-ppo", ["run.trackers=['wandb', 'mlflow', 'wandb']"])
    found = beside(Begun(config, RunDir(tmp_path, 0, (), frozenset())))
    assert [(child.name, child.restart, child.needed) for child in found] == [
        ("wandb", True, False),
        ("mlflow", True, False),
        ("evaluator-0", True, False),
    ]
    assert beside(Begun(load("cartpole-ppo", ["run.evaluation_share=0"]), RunDir(tmp_path, 0, (), frozenset()))) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_one_that_is_not_installed_is_said_before_anything_starts(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert main(["train", "cartpole-ppo", "--run-dir", str(tmp_path / "run"), "--set", f"run.trackers=['{name}']"]) == 2
    assert f"pip install 'headrace[{name}]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def python(code: str, *arguments: str) -> str:
    """What a program of its own prints last: trackers leave threads and warnings behind."""
    argv = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]
