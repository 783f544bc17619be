"""The real command, from the first word to the last file: what it leaves behind, and what it says to bad usage."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tomllib
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
    assert "networks: pi 4,610 parameters, vf 4,545; 18.5 kB a version to the actors\n" in done.stdout
    return run_dir


def test_a_run_directory_is_complete(finished):
    there = {path.name for path in finished.iterdir()}
    assert there >= {"config.toml", "plan.json", "metrics.jsonl", "tensorboard", "returns.png", "final.gif",
                     "checkpoints", "result.json", "logs"}  # fmt: skip
    assert (finished / "returns.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "final.gif").read_bytes().startswith(b"GIF8")
    assert list((finished / "tensorboard").glob("events.*"))
    assert {log.name for log in (finished / "logs").iterdir()} >= {"learner-0.log", "paramserver-0.log", "actor-1.log"}
    planned = json.loads((finished / "plan.json").read_text())
    assert planned["staleness_at_most_versions"] == 1
    assert planned["networks"] == {"pi": 4 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2, "vf": 4545}
    assert (finished / "config.toml").stat().st_mode & 0o777 == 0o600
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


def test_what_only_a_role_finds_out_ends_the_run_with_its_line_and_leaves_nothing(tmp_path, private_tmpdir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ["train", "cartpole-ppo", "--run-dir", str(tmp_path / "runs" / "run")]
        refuses([*arguments, "--set", f"weights.address={address}"], f"cannot listen on {address}")
        single = ["paramserver", "--config", "cartpole-ppo", "--set", "run.id=x", "--run-dir", str(tmp_path / "one")]
        done = headrace(*single, "--set", f"weights.address={address}")
        assert (done.returncode, f"cannot listen on {address}" in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == [private_tmpdir]
    assert list(private_tmpdir.iterdir()) == []


@pytest.fixture
def private_tmpdir(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "tmp"


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
        (["train", "pendulum-sac", "--set", "task.env=CartPole-v1"], "needs a Box action space"),
        (["train", "--resume"], "give the run to go on with"),
        (["train", "--resume", "--run-dir", "nowhere"], "nowhere: no such directory"),
        (["evaluate", "nowhere"], "nowhere: no such directory"),
        (["evaluate", "nowhere", "--gif", "agent.mp4"], "agent.mp4: name a file that ends in .gif"),
        (["evaluate", "nowhere", "--gif", "nowhere/agent.gif"], "in a directory that is there"),
        (["evaluate", "x" * 300], "no such directory"),
        (["train", "x" * 300], "is neither a preset nor a file"),
        (["train", "cartpole-ppo", "--run-dir", "x" * 300], "File name too long"),
        (["status", "--url", "http://[::1"], "use http://host:port"),
        (["status", "nowhere"], "no run"),
        (["status", __file__], "no run"),
        (["status"], "give a run directory"),
        (["actor", "--config", "cartpole-ppo"], "run.id is empty"),
        (["learner", "--config", "cartpole-ppo", "--set", "run.id=x"], "--run-dir is needed"),
        (["fly"], "invalid choice: 'fly'"),
        (["train", "--sett", "run.seed=1"], "--sett"),
        (["train", "cartpole-ppo", "--set", "learner.device=cuda:77"], "learner.device 'cuda:77'"),
        (["train", "cartpole-ppo", "--set", "transport.url=kafka://me:PASSWORD@h:9092/t"], "no login in the address"),
        (["train", "cartpole-ppo", "--seed", "1"], "--seed is no option; say --set run.seed=1"),
        (["train", "--seed", "1"], "--seed is no option; say --set run.seed=1"),
        (["train", "cartpole-ppo", "--learning-rate=0.1"], "say --set algorithm.learning_rate=0.1"),
        (["learner", "--config", "cartpole-ppo", "--run.id", "x"], "--run.id is no option; say --set run.id=x"),
        (["train", "cartpole-ppo", "--episodes=-1"], "'-1' is no number of them; use 0 or more"),
        (["train", "cartpole-ppo", "--run-dir", "/proc/run"], "/proc/run: No such file"),
        (["train", "cartpole-ppo", "--run-dir", "/dev/null"], "/dev/null: File exists"),
        (["train", "cartpole-ppo", "--run-dir", "/dev/null/run"], "/dev/null/run: Not a directory"),
        (["actor", "--config", "cartpole-ppo", "--metrics-port", "99999"], "'99999' is no port; use 1 to 65535"),
        (["actor", "--config", "cartpole-ppo", "--metrics-port=-1"], "'-1' is no port; use 1 to 65535"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2_and_leaves_nothing_behind(
    arguments, says, tmp_path, private_tmpdir, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as leaving:  # argparse
        code = leaving.code
    assert code == 2
    is_one_line(capsys.readouterr().err, says)
    assert list(tmp_path.iterdir()) == [private_tmpdir]
    assert list(private_tmpdir.iterdir()) == []


def test_trainings_started_at_once_get_directories_of_their_own(tmp_path):
    """Each trains to its end: the config, the sockets and the lock are its own as well."""
    argv = [sys.executable, "-m", "headrace.launch.cli", "train", "cartpole-ppo", "--episodes", "0"]
    settings = ["run.total_steps=1024", "actors.processes=1", "learner.device=cpu", "algorithm.hidden=[8]"]
    argv += [word for setting in settings for word in ("--set", setting)]
    trains = [subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    said = [train.communicate(timeout=100)[0] for train in trains]
    assert [train.returncode for train in trains] == [0] * 5, said
    names = {line for out in said for line in out.splitlines() if line.startswith("run directory: ")}
    assert names == {f"run directory: {tmp_path}/runs/cartpole-ppo-{n}" for n in range(1, 6)}
    ids = {tomllib.loads(c.read_text())["run"]["id"] for c in tmp_path.glob("runs/*/config.toml")}
    assert len(ids) == 5


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
