"""headrace export, and the file it leaves, run by a program that has nothing of ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.runs import headrace, train
from tests.pages import page


@pytest.mark.parametrize(("preset", "number"), [("cartpole-ppo", 0), ("cartpole-recurrent-ppo", 1)])
def test_a_run_is_exported_and_played_by_the_page_s_program(tmp_path: Path, preset: str, number: int) -> None:
    run = tmp_path / "run"
    train(preset, run, ["run.total_steps=30_000", "run.seed=1"])
    done = headrace("export", str(run), str(tmp_path / "policy.onnx"))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r".*policy\.onnx: [\d,]+ bytes, greedy, version \d+, 3\d,\d+ steps\n", done.stdout)
    program = [block.text for block in page("docs/export.md").blocks if block.language == "python"][number]
    assert "headrace" not in program
    assert len(program.splitlines()) <= 14
    played = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert played.returncode == 0, played.stderr
    assert float(played.stdout.split()[-1]) > (100 if preset == "cartpole-ppo" else 0), played.stdout


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    for file, run, said in (
        ("policy.txt", "run", "name a file that ends in .onnx"),
        ("away/policy.onnx", "run", "in a directory that is there"),
        ("policy.onnx", "nowhere", "nowhere"),
    ):
        done = headrace("export", str(tmp_path / run), str(tmp_path / file))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr
