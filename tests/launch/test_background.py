"""headrace.train: a training watched from the caller's own process, and no process left however that ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.observe.rows import read_rows
from tests.launch.killed_train import roles

SMALL = {"learner.device": "cpu", "algorithm.hidden": [16], "actors.processes": 1, "run.log_every_s": 0.05}
ENDLESS = {**SMALL, "run.total_steps": 10**9}
#: An environment in a folder that only sys.path of this process knows.
#: With an end of its own: a policy that holds the pole would be evaluated for ever.
OWN = """
from gymnasium.envs.classic_control import CartPoleEnv


class Pole(CartPoleEnv):
    def reset(self, **kwargs):
        self.left = 500
        return super().reset(**kwargs)

    def step(self, action):
        self.left -= 1
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, self.left == 0, info
"""


def test_rows_are_live_and_a_run_is_that_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "poles_of_their_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "path")
    from poles_of_their_own import Pole

    monkeypatch.chdir(tmp_path)
    called: list[headrace.Row] = []
    settings = {**SMALL, "task": {"env": Pole}, "run.total_steps": 40_000, "run.seed": 1}
    run = headrace.train("cartpole-ppo", settings, on_row=called.append, episodes=3)
    assert run.path == tmp_path / "runs" / "cartpole-ppo-1"
    seen, learning = [], 0
    for row in run.rows():
        seen.append(row)
        learning += run.running and 0 < row["env_steps"] < 40_000
    assert learning >= 3, "rows came while it learnt"
    result = run.wait()
    assert seen == called == list(run.rows()) == read_rows(run.path / "metrics.jsonl")
    assert (result.finished, result.path, run.running) == (True, run.path, False)
    assert result.env_steps == seen[-1]["env_steps"] >= 40_000
    assert result.evaluation is not None
    kept = json.loads((run.path / "result.json").read_text())
    assert kept["evaluation"]["returns"] == list(result.evaluation.returns)
    assert len(result.evaluation.returns) == 3
    assert (run.path / "returns.png").exists()
    assert roles(run.path) == []
    assert capfd.readouterr() == ("", ""), "it says nothing unless it is asked to"
    for _ in range(2):  # the first time leaves no hold on it
        with pytest.raises(headrace.UsageError, match="is finished"):
            headrace.train(run.path, resume=True)


def test_a_run_is_stopped_by_a_callback_and_goes_on(tmp_path: Path) -> None:
    runs: list[headrace.Run] = []
    rows: list[headrace.Row] = []

    def stop(row: headrace.Row) -> None:
        rows.append(row)
        if row["version"] > 0:
            runs[0].stop()

    with headrace.train("cartpole-ppo", ENDLESS, run_dir=tmp_path / "run", on_row=stop) as run:
        runs.append(run)
        with pytest.raises(TimeoutError):
            run.wait(timeout_s=0.01)
        result = run.wait(60)
    assert (result.finished, result.evaluation) == (False, None)
    assert 0 < result.env_steps < 10**9
    assert roles(run.path) == []

    more = result.env_steps + 10_000
    again = headrace.train(run.path, {"run.total_steps": more, "run.log_every_s": 0.1}, resume=True, episodes=0)
    first, *_, last = again.rows()
    assert first["learner_epoch"] == 2, "rows of the life before are not given again"
    assert last["env_steps"] == again.wait(60).env_steps >= more
    assert again.wait().finished


def test_a_callback_that_raises_ends_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def wrong(row: headrace.Row) -> None:
        raise ZeroDivisionError("a slip")

    run = headrace.train("cartpole-ppo", ENDLESS, run_dir=tmp_path / "run", on_row=wrong)
    for raising in (run.wait, lambda: list(run.rows())):
        with pytest.raises(ZeroDivisionError, match="a slip"):
            raising()
    assert roles(run.path) == []
    assert list((run.path / "checkpoints").glob("ckpt-*")), "what was learnt is kept"
    assert f"{run.path} ended: ZeroDivisionError: a slip" in caplog.text
    run.stop()


def test_what_only_a_process_finds_out_is_raised_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        run = headrace.train("cartpole-ppo", {**ENDLESS, "weights.address": address}, run_dir=tmp_path / "run")
        with pytest.raises(headrace.UsageError, match=f"cannot listen on {address}"):
            run.wait(60)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_for_good_is_raised_with_its_last_words(tmp_path: Path) -> None:
    run = headrace.train("cartpole-ppo", ENDLESS, run_dir=tmp_path / "run")
    next(run.rows())
    (learner,) = [int(p) for p in os.listdir("/proc") if p.isdecimal() and is_learner(p, run.path)]
    os.kill(learner, signal.SIGKILL)
    with pytest.raises(headrace.HeadraceError, match=r"learner-0 died \(SIGKILL\)") as raised:
        run.wait(60)
    assert hasattr(raised.value, "__notes__")
    assert roles(run.path) == []


def is_learner(pid: str, run_dir: Path) -> bool:
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"learner" in words and str(run_dir).encode() in words


SCRIPT = """
import headrace, sys
run = headrace.train("cartpole-ppo", {settings!r}, run_dir=sys.argv[1])
next(run.rows())
print("learning", flush=True)
{then}
"""
#: What the script does next, what is done to it, and the last line of what it says.
ENDS: dict[str, tuple[str, int, str]] = {
    "raises": ("sys.exit(1 / 0)", 0, "ZeroDivisionError: division by zero"),
    "ends": ("", 0, ""),
    "interrupted": ("run.wait()", signal.SIGINT, "KeyboardInterrupt"),
    "killed": ("run.wait()", signal.SIGKILL, ""),
}


@pytest.mark.timeout(180)
def test_nothing_is_left_of_a_caller_however_it_ends(tmp_path: Path) -> None:
    scripts = {}
    for name, (then, _, _) in ENDS.items():
        code = SCRIPT.format(settings=ENDLESS, then=then)
        argv = [sys.executable, "-c", code, str(tmp_path / name)]
        scripts[name] = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for name, script in scripts.items():
            assert script.stdout is not None
            assert script.stdout.readline() == "learning\n", script.communicate()[1]
            if (number := ENDS[name][1]) != 0:
                script.send_signal(number)
        for name, script in scripts.items():
            _, err = script.communicate(timeout=60)
            assert (err.splitlines() or [""])[-1] == ENDS[name][2], err
            wait_until_gone(tmp_path / name, 0.0 if name != "killed" else 30.0)
            assert list((tmp_path / name / "checkpoints").glob("ckpt-*")), f"{name}: its learner wrote a checkpoint"
    finally:
        for script in scripts.values():
            script.kill()
            script.wait()


def wait_until_gone(run_dir: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while left := roles(run_dir):
        assert time.monotonic() < deadline, f"{run_dir.name}: {left} left"
        time.sleep(0.05)


class Here:
    """Not importable by others: stands in for a class of a notebook."""


def test_a_class_of_the_session_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Here, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Here", Here, raising=False)
    monkeypatch.chdir(tmp_path)
    table = {"task": {"env": "CartPole-v1", "wrappers": [{"name": Here}]}}
    for what, settings, where in (
        ("cartpole-ppo", {"task.env": Here}, "task.env"),
        (table, {}, "task.wrappers.0.name"),
    ):
        with pytest.raises(headrace.UsageError) as refused:
            headrace.train(what, settings)
        said = str(refused.value)
        assert said.startswith(f"{where}: Here is defined in this session, from which the processes of a run cannot ")
        assert said.endswith("into a file, own.py, and name it 'own:Here'; headrace.train_serial takes it as it is")
        assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "keywords", "says"),
    [
        (["cartpole-poo"], {}, "did you mean 'cartpole-ppo'"),
        (["cartpole-ppo", {"run.sede": 1}], {}, "did you mean 'seed'"),
        (["cartpole-ppo", {"run.seed": None}], {}, "run.seed is None: leave it out"),
        (["cartpole-ppo", {"run.seed": object()}], {}, "no object"),
        (["cartpole-ppo", {"task.env": lambda: None}], {}, "known by its name"),
        (["cartpole-ppo", {"seed": 1}], {}, "write section.key=value"),
        ([{"algorithm": "ppo"}], {}, "algorithm = 'ppo': a section"),
        ([{"task": {"env": "CartPoel-v1"}}], {}, "CartPoel"),
        (["nowhere"], {"resume": True}, "nowhere: no such directory"),
        (["nowhere"], {"resume": True, "run_dir": "there"}, "run_dir is left out"),
    ],
)
def test_bad_usage_is_raised_before_anything_is_written(
    arguments: list[Any], keywords: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(headrace.UsageError, match=says):
        headrace.train(*arguments, **keywords)
    assert list(tmp_path.iterdir()) == []
