"""Whole trainings of environments that leave their process in disorder: they come to their end all the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
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
    odd = ["--set", f"task.env=tests.hostile.odd_envs:{env}-v0", "--run-dir", "run"]
    done = headrace("train", "cartpole-ppo", *SHORT, *odd, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert {"result.json", "returns.png", "config.toml"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert list((tmp_path / "run" / "endpoints").iterdir()) == []


def test_an_evaluation_without_end_can_be_interrupted(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    odd = ["--set", "task.env=tests.hostile.odd_envs:Endless-v0", "--run-dir", str(tmp_path / "run")]
    argv = [sys.executable, "-m", "headrace.launch.cli", "train", "cartpole-ppo", *SHORT, *odd]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as train:
        roles = psutil.Process(train.pid)
        try:
            wait_for(lambda: any((tmp_path / "run").glob("checkpoints/ckpt-*[1-9]")) and not roles.children())
            train.send_signal(signal.SIGINT)
            assert train.wait(10) == -signal.SIGINT
        finally:
            train.kill()


def wait_for(probe: Callable[[], bool], deadline_s: float = 90) -> None:
    until = time.monotonic() + deadline_s
    while not probe():
        assert time.monotonic() < until
        time.sleep(0.1)
