"""Three seeds of a short training, for the tests of what leaves them and of what reads them. Trained once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .runs import headrace

SMALL = ["learner.device=cpu", "actors.processes=1", "algorithm.hidden=[8]", "run.log_every_s=0.1"]
SETS = [word for setting in [*SMALL, "run.total_steps=2048"] for word in ("--set", setting)]


@pytest.fixture(scope="session")
def three_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds, two of them done at once and one after its failure."""
    folder = tmp_path_factory.mktemp("seeds") / "three"
    (folder / "seed-1").mkdir(parents=True)
    (folder / "seed-1" / "config.toml").write_text("run = ")
    words = ["--run-dir", str(folder), "--episodes", "3"]
    done = headrace("train", "cartpole-ppo", "--seeds", "0:3", "--parallel", "2", *SETS, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"seed 1 failed; try again with: headrace train --resume --run-dir {folder}" in done.stderr
    assert f"seed 1 failed: headrace train: {folder / 'seed-1' / 'config.toml'}: not valid TOML: " in done.stdout
    said = json.loads((folder / "seeds.json").read_text())
    assert [run["state"].partition(":")[0] for run in said["runs"]] == ["done", "failed", "done"]
    assert said["evaluation"]["seeds"] == 2
    (folder / "seed-1" / "config.toml").unlink()
    before = [(folder / "logs" / f"seed-{k}.log").read_bytes() for k in (0, 2)]
    again = headrace("train", "--resume", "--run-dir", str(folder), "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(again.stdout) == json.loads((folder / "seeds.json").read_text())
    assert [(folder / "logs" / f"seed-{k}.log").read_bytes() for k in (0, 2)] == before, "done is not begun again"
    return folder
