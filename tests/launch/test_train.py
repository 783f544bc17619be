"""The real command, from the first word to the last file: what it leaves behind, and what it says to bad usage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.launch.cli import main

from .runs import headrace, train

SHORT = ["run.total_steps=4096", "learner.device=cpu"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a whole short run."""
    run_dir = tmp_path_factory.mktemp("train") / "run"
    done = train("cartpole-ppo", run_dir, SHORT, "--episodes", "4")
    assert "greedy evaluation: " in done.stdout
    return run_dir


def test_a_run_directory_is_complete(finished):
    there = {path.name for path in finished.iterdir()}
    assert there >= {"config.toml", "plan.json", "metrics.jsonl", "tensorboard", "returns.png", "final.gif",
                     "checkpoints", "result.json", "logs"}  # fmt: skip
    assert (finished / "returns.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "final.gif").read_bytes().startswith(b"GIF8")
    assert list((finished / "tensorboard").glob("events.*"))
    assert {log.name for log in (finished / "logs").iterdir()} >= {"learner-0.log", "paramserver-0.log", "actor-1.log"}
    assert json.loads((finished / "plan.json").read_text())["staleness_at_most_versions"] == 1
    result = json.loads((finished / "result.json").read_text())
    assert result["env_steps"] >= 4096
    assert result["evaluation"]["episodes"] == 4
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["env_steps"] == result["env_steps"]
    assert rows[-1]["rejected"] == {}
    assert max(row["staleness_max"] for row in rows) <= 1


def test_a_finished_run_is_evaluated(finished, tmp_path):
    done = headrace("evaluate", str(finished), "--episodes", "4", "--json", "--gif", str(tmp_path / "agent.gif"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["returns"] == json.loads((finished / "result.json").read_text())["evaluation"]["returns"]
    assert (tmp_path / "agent.gif").read_bytes().startswith(b"GIF8")


def test_a_finished_run_has_a_status(finished):
    done = headrace("status", str(finished), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "finished"


def test_a_finished_run_is_not_written_over(finished):
    before = (finished / "metrics.jsonl").read_bytes()
    refuses(["train", "cartpole-ppo", "--run-dir", str(finished)], "already holds a run")
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_envpool_environments_train_as_well(tmp_path):
    train("cartpole-ppo", tmp_path / "run", [*SHORT, "task.backend=envpool"])
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["env_steps"] >= 4096


def refuses(arguments: list[str], says: str) -> None:
    done = headrace(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    is_one_line(done.stderr, says)


def is_one_line(stderr: str, says: str) -> None:
    """One line that says why (argparse puts its usage above it), no traceback."""
    *usage, last = stderr.strip().splitlines()
    assert says in last
    assert not usage or usage[0].startswith("usage: headrace"), stderr


def test_what_only_a_role_finds_out_ends_the_run_with_its_line(tmp_path):
    arguments = ["train", "cartpole-ppo", "--run-dir", str(tmp_path / "run"), "--set", "learner.device=cuda:77"]
    refuses(arguments, "learner.device 'cuda:77'")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train"], "name a preset or a file"),
        (["train", "cartpole-poo"], "did you mean 'cartpole-ppo'"),
        (["train", "cartpole-ppo", "--set", "run.sede=1"], "did you mean 'seed'"),
        (["train", "cartpole-ppo", "--set", "task.env=CartPoel-v1"], "CartPoel"),
        (["train", "cartpole-ppo", "--set", "transport.url=pulsar://somewhere/t"], "unknown scheme"),
        (["train", "cartpole-ppo", "--set", "transport.url=kafka://nowhere/t"], "is no host:port"),
        (["train", "cartpole-dqn", "--set", "task.env=Pendulum-v1"], "needs a Discrete action space"),
        (["train", "--resume"], "give the run to go on with"),
        (["train", "--resume", "--run-dir", "nowhere"], "nowhere: no such directory"),
        (["evaluate", "nowhere"], "nowhere: no such directory"),
        (["status", "nowhere"], "no run"),
        (["status"], "give a run directory"),
        (["actor", "--config", "cartpole-ppo"], "run.id is empty"),
        (["learner", "--config", "cartpole-ppo", "--set", "run.id=x"], "--run-dir is needed"),
        (["fly"], "invalid choice: 'fly'"),
        (["train", "--sett", "run.seed=1"], "--sett"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as leaving:  # argparse
        code = leaving.code
    assert code == 2
    is_one_line(capsys.readouterr().err, says)


def test_help_answers_at_once():
    """Under half a second of this process's own time: how long it waits for a core is the machine's business."""
    code = "import sys, time; from headrace.launch.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(time.process_time(), *[m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    *lines, spent = out.splitlines()
    assert lines[0].startswith("usage: headrace")
    seconds, *heavy = spent.split()
    assert float(seconds) < 0.5
    assert not heavy
