"""Whole trainings of environments that leave their process in disorder: they come to their end all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.runs import headrace

ROOT = Path(__file__).resolve().parent.parent.parent
SHORT = ["--set", "run.total_steps=1024", "--set", "learner.device=cpu", "--episodes", "2"]


@pytest.mark.parametrize(
    ("env", "says"),
    [("Threads", "odd-thread"), ("Moves", ""), ("Undrawn", "cannot be drawn")],
)
def test_a_training_comes_to_its_end(tmp_path, monkeypatch, env, says):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    odd = ["--set", f"task.env=tests.faults.odd_envs:{env}-v0", "--run-dir", "run"]
    done = headrace("train", "cartpole-ppo", *SHORT, *odd, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert {"result.json", "returns.png", "config.toml"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert list((tmp_path / "run" / "endpoints").iterdir()) == []
