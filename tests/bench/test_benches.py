"""The benches still run: each can be imported, and the ladder's rungs collect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .test_side_by_side import BENCH, load

NAMES = sorted(path.stem for path in BENCH.glob("*.py"))


def test_every_bench_can_be_imported() -> None:
    program = f"import {', '.join(NAMES)}"
    done = subprocess.run([sys.executable, "-c", program], cwd=BENCH, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rung", ["environment", "+ inference", "+ carrier"])
def test_a_rung_of_the_ladder_collects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rung: str) -> None:
    from headrace.common.metrics import Metrics
    from headrace.common.transport import Limits, open_source
    from headrace.launch.load import load as load_config

    rungs = load(monkeypatch, "rungs")
    config = load_config("cartpole-ppo", ["run.id=ladder", f"transport.url=local://{tmp_path}/t"])
    metrics = Metrics("learner")
    source = open_source(config.transport.url, limits=Limits(), metrics=metrics, dead_letter=tmp_path, group="g")
    looks = iter([False] * 4)
    steps = rungs.RUNGS[rung](config, 0, lambda: next(looks, True))
    source.close()
    assert steps >= config.actors.envs
