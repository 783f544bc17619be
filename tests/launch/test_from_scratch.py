"""docs/from-scratch.md, typed as it stands: an empty folder, a virtual environment, the package installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.installing import copy_sources
from tests.pages import ROOT, page

PAGE = page("docs/from-scratch.md")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with a wheel made from this checkout, and nothing that leads back into it. What it depends
    on is what the tests run with."""
    root = tmp_path_factory.mktemp("venv")
    source, venv, wheels = root / "source", root / "venv", root / "wheels"
    copy_sources(source)
    uv, constraints = [sys.executable, "-m", "uv"], ROOT / "constraints.txt"
    done(uv, "build", "--quiet", "--wheel", "-b", constraints, "--python", sys.executable, "-o", wheels, source)
    done(uv, "venv", "--quiet", "--python", sys.executable, venv)
    (wheel,) = wheels.glob("headrace-*.whl")
    done(uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python", "-c", constraints, wheel)
    return venv


def done(command: list[str], *words: object) -> None:
    ran = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


#: What a user's own file may look like. A comment that silences nothing is an error, too.
TYPED = """
from pathlib import Path
from typing import assert_type

import headrace


def tell(row: headrace.Row) -> None:
    assert_type(row["env_steps"], int)


run = headrace.train("cartpole-ppo", {"run.seed": 1}, on_row=tell)
assert_type(run, headrace.Run)
for row in run.rows():
    assert_type(row["return_mean"], float | None)
result = run.wait(timeout_s=60)
assert_type(result.finished, bool)
agent = headrace.load(result.path, best=True)
assert_type(agent, headrace.Agent)
assert_type(agent.export("policy.onnx"), Path)
headrace.train_serial("cartpole-ppo", on_version=lambda learner, trained: print(learner.counters.version))
assert_type(headrace.__version__, str)

headrace.tarin("cartpole-ppo")  # type: ignore[attr-defined]
headrace.train("cartpole-ppo", 1)  # type: ignore[arg-type]
result.finnished  # type: ignore[attr-defined]
"""


def test_a_checkout_s_root_is_no_trap(environment: Path) -> None:
    """Its folder headrace/ is what Python finds first there; the packages are the wheel's all the same."""
    code = "import headrace.launch.cli as it; print(it.__file__)"
    python = environment / "bin" / "python"
    ran = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.startswith(str(environment)), ran.stderr


@pytest.mark.timeout(300)
def test_a_file_that_imports_the_wheel_is_type_checked_strictly(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        os.devnull,
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    done(mypy, "--python-executable", environment / "bin" / "python", tmp_path / "typed.py")


@pytest.mark.timeout(900)
def test_the_page_as_it_stands(environment: Path, tmp_path: Path) -> None:
    assert PAGE.files().keys() == {"warehouse.py", "joined.py", "a2c.py", "warehouse.toml", "play.py"}
    PAGE.write_files(tmp_path)
    path = {"PATH": f"{environment / 'bin'}:/usr/bin:/bin", "HOME": str(Path.home())}
    train, resume, evaluate, export, play = PAGE.console()

    def said(words: list[str]) -> str:
        ran = subprocess.run(words, cwd=tmp_path, env=path, capture_output=True, text=True, timeout=200, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert str(environment) in said(["python", "-c", "import headrace.launch.cli as it; print(it.__file__)"])
    with subprocess.Popen(train, cwd=tmp_path, env=path, stdout=subprocess.DEVNULL, start_new_session=True) as running:
        wait_for_checkpoint(tmp_path / "warehouse" / "checkpoints", running)
        os.killpg(running.pid, signal.SIGKILL)
    assert not (tmp_path / "warehouse" / "result.json").exists(), "killed before its end"
    assert "greedy evaluation" in said(resume)
    assert json.loads(said(evaluate))["mean"] > 5.5
    said(export)
    text = (tmp_path / "play.py").read_text()
    assert "headrace" not in text
    assert float(said(play).split()[-1]) >= 4


def wait_for_checkpoint(folder: Path, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not any(folder.glob("ckpt-*/manifest.json")):
        assert running.poll() is None, "it ended before its first checkpoint"
        assert time.monotonic() < deadline, "no checkpoint in 60 s"
        time.sleep(0.05)
