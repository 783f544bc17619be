"""The evaluator role against a real parameter server."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from headrace.algorithms import ppo
from headrace.common.metrics import Metrics
from headrace.common.types import Spaces
from headrace.common.types import Weights as Published
from headrace.common.weights.base import Progress
from headrace.common.weights.grpc import GrpcPublisher
from headrace.launch.load import load
from headrace.paramserver.options import Options
from headrace.paramserver.server import ParamServer


def test_it_plays_what_the_server_has_and_keeps_the_figures(tmp_path: Path) -> None:
    config = load("cartpole-ppo", ["run.id=evaluated", f"weights.address=unix:{tmp_path}/w"])
    (tmp_path / "config.toml").write_text(config.to_toml())
    server = ParamServer(config.weights.address, Options(run_id="evaluated"), Metrics("paramserver"))
    server.start()
    publisher = GrpcPublisher(config.weights.address, "evaluated", "", Metrics("learner"))
    tensors, scalars = ppo.PPO(ppo.Config(), Spaces((4,), n_actions=2), seed=0).weights()
    publisher.publish(Published("evaluated", 1, 7, tensors, scalars), Progress(1))
    argv = ["evaluator", "--config", str(tmp_path / "config.toml"), "--run-dir", str(tmp_path), "--episodes", "3"]
    done = subprocess.run([sys.executable, "-m", "headrace.launch.cli", *argv, "--once"], check=False, timeout=60)
    assert done.returncode == 0
    (row,) = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert (row["version"], row["episodes"], len(row["returns"])) == (7, 3, 3)
    assert np.isclose(row["mean"], np.mean(row["returns"]))
    assert 8 <= row["mean"] <= 500
    publisher.close()
    server.stop(1.0)
