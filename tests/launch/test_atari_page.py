"""docs/atari.md, typed as it stands: Pong is trained from stacked frames, evaluated, drawn and exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.launch.runs import headrace
from tests.pages import page


@pytest.mark.timeout(500)
def test_what_the_page_says_is_done_as_it_stands(tmp_path: Path) -> None:
    for _, *words in page("docs/atari.md").console():
        done = headrace(*words, cwd=tmp_path, timeout_s=300.0)
        assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "pong" / "result.json").read_text())
    assert result["env_steps"] == 2048
    assert -21 <= result["evaluation"]["mean"] <= 21, "the game's own points, over a whole game"
    assert (tmp_path / "pong.gif").read_bytes().startswith(b"GIF8")
    policy = onnxruntime.InferenceSession(tmp_path / "pong.onnx", providers=["CPUExecutionProvider"])
    seen = {"obs": np.zeros((2, 84, 84), np.uint8), "state": np.zeros((2, 3, 84, 84), np.uint8)}
    action, state = policy.run(["action", "next_state"], seen)
    assert (action.shape, state.shape) == ((2,), (2, 3, 84, 84))


def test_envpool_collects_the_same_run(tmp_path: Path) -> None:
    small = ["run.total_steps=256", "actors.fragment_steps=32", "actors.envs=4", "algorithm.hidden=[16]"]
    sets = [word for override in [*small, "task.backend=envpool"] for word in ("--set", override)]
    done = headrace("train", "pong-ppo", *sets, "--run-dir", str(tmp_path / "run"), "--episodes", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["env_steps"] >= 256
