"""The evaluator role against a real parameter server."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headrace.algorithms import ppo
from headrace.common.metrics import Metrics
from headrace.common.types import Spaces
from headrace.common.types import Weights as Published
from headrace.common.weights.base import Progress
from headrace.common.weights.grpc import GrpcPublisher
from headrace.launch import best
from headrace.launch.load import load
from headrace.paramserver.options import Options
from headrace.paramserver.server import ParamServer


def evaluator(folder: Path, file_bytes: int = -1) -> "subprocess.CompletedProcess[str]":
    """``file_bytes``: how large a file of it may become. Set from here: with a ``preexec_fn`` Python forks, and what
    gRPC does in a child of a process that serves ended one of some thousand of them (SIGABRT) before it began."""
    argv = ["evaluator", "--config", str(folder / "config.toml"), "--run-dir", str(folder), "--episodes", "3", "--once"]
    command = [sys.executable, "-m", "headrace.launch.cli", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture
def published(tmp_path: Path) -> Iterator[None]:
    """A server with version 7 of a policy; its run's config is in the folder."""
    config = load("cartpole-ppo", ["run.id=evaluated", f"weights.address=unix:{tmp_path}/w"])
    (tmp_path / "config.toml").write_text(config.to_toml())
    server = ParamServer(config.weights.address, Options(run_id="evaluated"), Metrics("paramserver"))
    server.start()
    publisher = GrpcPublisher(config.weights.address, "evaluated", "", Metrics("learner"))
    tensors, scalars = ppo.PPO(ppo.Config(), Spaces.box((4,), n_actions=2), seed=0).weights()
    publisher.publish(Published("evaluated", 1, 7, tensors, scalars), Progress(1))
    yield
    publisher.close()
    server.stop(1.0)


@pytest.mark.usefixtures("published")
def test_it_plays_what_the_server_has_and_keeps_the_figures(tmp_path: Path) -> None:
    done = evaluator(tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert (row["version"], row["episodes"], len(row["returns"])) == (7, 3, 3)
    assert np.isclose(row["mean"], np.mean(row["returns"]))
    assert 8 <= row["mean"] <= 500
    assert (row["env_steps"], row["time_s"], row["learner_epoch"]) == (None, None, 1), "nobody said when it was made"
    assert best.score(tmp_path) == row["mean"]


@pytest.mark.usefixtures("published")
def test_a_video_of_the_newest_policy_where_it_is_asked_for(tmp_path: Path) -> None:
    config = load(str(tmp_path / "config.toml"), ["run.video_every_s=60"])
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert evaluator(tmp_path).returncode == 0
    (video,) = (tmp_path / "videos").iterdir()
    assert video.name == "7.gif", "of version 7: nobody said after how many steps that was"
    assert video.read_bytes().startswith(b"GIF8")


@pytest.mark.usefixtures("published")
def test_it_does_without_torch_and_matplotlib(tmp_path: Path) -> None:
    code = "import sys; from headrace.launch.cli import main; main(sys.argv[1:])\n"
    code += "print({'torch', 'matplotlib', 'tensorboard', 'PIL'} & set(sys.modules))"
    argv = ["evaluator", "--config", str(tmp_path / "config.toml"), "--run-dir", str(tmp_path), "--once"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    assert json.loads((tmp_path / "evaluations.jsonl").read_text())["episodes"] == 20


@pytest.mark.usefixtures("published")
def test_a_full_disk_costs_the_figures_and_nothing_else(tmp_path: Path) -> None:
    """The limit on a file's size is the disk."""
    done = evaluator(tmp_path, file_bytes=10)
    assert done.returncode == 0, done.stderr
    assert "version 7: " in done.stdout
    assert "evaluations.jsonl: the last 1 were not written" in done.stderr
    assert (tmp_path / "evaluations.jsonl").read_bytes() == b""
