"""headrace train --seeds: a run of each, what they say together, and how it goes on after anything."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.launch.cli import main
from headrace.launch.seeds_dir import evaluation_over
from headrace.launch.train_seeds import seeds

from .runs import headrace
from .seeds import SMALL

SETS = [word for setting in [*SMALL, "run.total_steps=60_000"] for word in ("--set", setting)]


def test_each_seed_has_a_whole_run_directory(three_seeds: Path) -> None:
    for seed in range(3):
        run = three_seeds / f"seed-{seed}"
        there = {path.name for path in run.iterdir()}
        assert there >= {"config.toml", "metrics.jsonl", "checkpoints", "result.json", "returns.png"}
        assert f"\nseed = {seed}\n" in (run / "config.toml").read_text()
        assert ("final.gif" in there) == (seed == 0)
        assert "greedy evaluation: " in (three_seeds / "logs" / f"seed-{seed}.log").read_text()
    assert (three_seeds / "common.toml").stat().st_mode & 0o777 == 0o600
    assert (three_seeds / "seeds.png").stat().st_size > 10_000


def test_seeds_json_says_what_the_runs_say(three_seeds: Path) -> None:
    said = json.loads((three_seeds / "seeds.json").read_text())
    results = [json.loads((three_seeds / f"seed-{k}" / "result.json").read_text()) for k in range(3)]
    assert said["seeds"] == [0, 1, 2]
    assert said["episodes"] == 3
    for run, result in zip(said["runs"], results, strict=True):
        assert run["state"] == "done"
        assert run["mean"] == result["evaluation"]["mean"]
        assert run["lowest"] == min(result["evaluation"]["returns"])
    means = [result["evaluation"]["mean"] for result in results]
    over = said["evaluation"]
    assert over == evaluation_over(means)
    assert over["low"] <= over["iqm"] <= over["high"]
    assert over["lowest_seed"] == min(means)


def test_what_is_done_is_not_done_again_and_more_seeds_are_added(three_seeds: Path) -> None:
    done = headrace("train", "--resume", "--run-dir", str(three_seeds), "--seeds", "2:3")
    assert done.returncode == 0, done.stderr
    assert "over 3 seeds, 3 greedy episodes each" in done.stdout
    assert "seed 2: greedy" in done.stdout


@pytest.mark.timeout(300)
def test_killed_or_stopped_it_goes_on_and_loses_nothing(tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "runs" / "cartpole-ppo-seeds-1"
    train = start("cartpole-ppo", "--seeds", "0:2", *SETS, "--episodes", "2", "--no-gif", cwd=tmp_path)
    until(lambda: epochs(folder / "seed-0") == 1)
    train.kill()
    train.communicate()
    resumed = start("--resume", "--run-dir", str(folder), "--no-gif", cwd=tmp_path)  # waits for what still writes
    until(lambda: epochs(folder / "seed-0") == 2)
    resumed.send_signal(signal.SIGINT)
    out, _ = resumed.communicate(timeout=100)
    assert resumed.returncode == 0, out
    assert f"stopped; go on with: headrace train --resume --run-dir {folder}" in out
    states = [run["state"] for run in json.loads((folder / "seeds.json").read_text())["runs"]]
    assert states == ["stopped", "not begun"], out
    done = headrace("train", "--resume", "--run-dir", str(folder), "--no-gif", "--json")
    assert done.returncode == 0, done.stderr
    assert [run["state"] for run in json.loads(done.stdout)["runs"]] == ["done", "done"]
    assert epochs(folder / "seed-0") == 3
    assert epochs(folder / "seed-1") == 1


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """`headrace train`, gone at the end of the test."""
    with contextlib.ExitStack() as stack:

        def train(*words: str, cwd: Path) -> subprocess.Popen[str]:
            argv = [sys.executable, "-m", "headrace.launch.cli", "train", *words]
            process = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield train


def epochs(run: Path) -> int:
    """Lives of the learner that wrote a row."""
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return len({json.loads(line)["learner_epoch"] for line in lines})


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_seeds_of_a_command_line() -> None:
    assert seeds("0:5") == (0, 1, 2, 3, 4)
    assert seeds("1000:1002") == (1000, 1001)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["cartpole-ppo", "--seeds", "5"], "'5' are no seeds; 0:5 are 0, 1, 2, 3 and 4"),
        (["cartpole-ppo", "--seeds", "3:3"], "'3:3' are no seeds"),
        (["cartpole-ppo", "--seeds", "0:9999999"], "(up to 1,000)"),
        (["cartpole-ppo", "--seeds", "0:2", "--parallel", "0"], "--parallel 0: at least 1"),
        (["cartpole-ppo", "--parallel", "2"], "go with --seeds A:B"),
        (["cartpole-ppo", "--json"], "go with --seeds A:B"),
        (["cartpole-ppo", "--seeds", "0:2", "--set", "run.seed=1"], "the seeds are those of --seeds"),
        (["cartpole-poo", "--seeds", "0:2"], "did you mean 'cartpole-ppo'"),
        (["cartpole-ppo", "--seeds", "0:2", "--set", "task.env=CartPoel-v1"], "CartPoel"),
        (
            ["cartpole-ppo", "--seeds", "0:2", "--parallel", "2", "--set", "weights.address=127.0.0.1:1"],
            "each run needs its own",
        ),
        (["--seeds", "0:2"], "name a preset or a file"),
        (["--resume", "--seeds", "0:2"], "give the seeds to go on with, --run-dir D"),
        (["--resume", "--seeds", "0:2", "--run-dir", "nowhere"], "is no directory of seeds: it holds no seeds.json"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_nothing(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["train", *words])
    except SystemExit as leaving:  # argparse
        code = int(str(leaving.code))
    assert code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_seeds_is_not_written_over_and_keeps_its_settings(
    three_seeds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (three_seeds / "seeds.json").read_bytes()
    for words, says in (
        (["cartpole-ppo", "--seeds", "0:2"], "already holds a run; go on with it by --resume"),
        (["cartpole-ppo"], "already holds a run"),
        (["--resume", "--set", "run.total_steps=4096"], "keep their settings; go on with a single one by --run-dir"),
    ):
        assert main(["train", *words, "--run-dir", str(three_seeds)]) == 2
        assert says in capsys.readouterr().err
    assert (three_seeds / "seeds.json").read_bytes() == before
