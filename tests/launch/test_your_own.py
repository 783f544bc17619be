"""docs/own-environment.md, docs/own-network.md and docs/own-algorithm.md, typed as they stand, in an empty folder
outside the repository; and what can be wrong in them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import Page, page

ENVIRONMENT, NETWORK, ALGORITHM = map(page, ("docs/own-environment.md", "docs/own-network.md", "docs/own-algorithm.md"))
#: The installed command, as people type it: Python does not put their folder on the path for it.
HEADRACE = str(Path(sys.executable).with_name("headrace"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the pages have written: their files by the names in their first lines."""
    for of in (ENVIRONMENT, NETWORK, ALGORITHM):
        of.write_files(tmp_path)
    return tmp_path


def typed(of: Page) -> list[list[str]]:
    """What is typed in a page, without the first word."""
    return [words for _, *words in of.console()]


def headrace(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HEADRACE, *words], cwd=folder, capture_output=True, text=True, timeout=110)


def refused(folder: Path, *words: str) -> str:
    """The one line with which a training does not begin."""
    done = headrace(folder, "train", "own.toml", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert not (folder / "runs").exists()
    (line,) = done.stderr.splitlines()
    return line


def test_an_environment_of_one_s_own_is_learned(folder: Path) -> None:
    train, evaluate = typed(ENVIRONMENT)
    done = headrace(folder, *train)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ppo on my_env:Catch" in done.stdout
    assert "no GIF: 'my_env:Catch' takes no argument render_mode; " in done.stdout
    done = headrace(folder, *evaluate)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mean"] > 0.8, "of 1: it learned, and what is told is the environment's return, not the wrapper's half"


def test_an_algorithm_of_one_s_own_learns_and_goes_on(folder: Path) -> None:
    train, evaluate, resume = typed(ALGORITHM)
    done = headrace(folder, *train)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Reinforce on my_env:Catch" in done.stdout
    done = headrace(folder, *evaluate)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mean"] > 0.8
    done = headrace(folder, *resume)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((folder / "reinforced" / "result.json").read_text())["env_steps"] >= 90_000


def test_a_network_of_one_s_own_learns_and_is_exported(folder: Path) -> None:
    train, evaluate, export = typed(NETWORK)
    done = headrace(folder, *train)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "networks: pi 2,339 parameters, vf 2,273; " in done.stdout
    done = headrace(folder, *evaluate)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mean"] > 0.8
    done = headrace(folder, *export)
    assert done.returncode == 0, done.stderr
    assert (folder / "skip.onnx").stat().st_size > 4 * 2000


def test_a_policy_that_records_something_else_than_its_schema_is_one_line(folder: Path) -> None:
    """Known only once it acts: an actor finds it."""
    text = (folder / "reinforce.py").read_text()
    wrong = text.replace(
        "return PolicyOutput((logits + noise).argmax(1), {})",
        "return PolicyOutput((logits + noise).argmax(1), {'logp': noise})",
    )
    assert wrong != text
    (folder / "reinforce.py").write_text(wrong)
    says = (
        "algorithm.name: its policy records ['logp'] beside its actions, and its schema() has []; they must be the same"
    )
    assert says in refused(folder)


@pytest.mark.parametrize(
    ("file", "instead_of", "there_is", "says"),
    [
        ("reinforce.py", "class Reinforce(Stateful)", "class Reinforce", r"reinforce\.py, line \d+: no state\(\);"),
        ("reinforce.py", "def schema", "def shema", r"reinforce\.py: no schema\(\); an algorithm has Config, schema"),
        (
            "reinforce.py",
            "import numpy",
            "import nunpy",
            r"reinforce cannot be imported .*'nunpy' \(reinforce\.py",
        ),
        ("reinforce.py", "class Reinforce(", "class Other(", r"reinforce\.py has no 'Reinforce'"),
        (
            "reinforce.py",
            "def experience",
            "def experiences",
            r"reinforce\.py, line \d+: Config must be a ",
        ),
        ("my_env.py", "class Catch", "class Caught", r"task\.env 'my_env:Catch': .*my_env has nothing of"),
        ("my_env.py", "return board.ravel()", "return board", r"'my_env:Catch' number 0 showed .* of shape \(6, 6\);"),
        (
            "my_env.py",
            "super().reset(seed=seed)",
            "1 / 0",
            r"ZeroDivisionError: division by zero \(my_env\.py, line 14",
        ),
        ("my_env.py", "size: int = 6", "sides: int = 6", r"task\.env 'my_env:Catch' .* cannot be made: TypeError"),
        ("my_env.py", "class Catch(gymnasium.Env)", "class Catch", r"my_env:Catch' returned Catch, no gymnasium\.Env"),
        (
            "my_env.py",
            "factor: float",
            "times: float",
            r"task\.wrappers\[0\] 'my_env:Scaled' with .* wraps nothing",
        ),
        (
            "own.toml",
            "my_env:Scaled",
            "NormalizeReward",
            r"task\.wrappers\[0\] 'NormalizeReward' keeps running",
        ),
        ("own.toml", "my_env:Scaled", "Scald", r"task\.wrappers\[0\] 'Scald': gymnasium\.wrappers has none"),
        ("own.toml", "hidden = 32", "clip = 0.2", r"unknown key algorithm\.clip; known: fragments, gamma, hidden, "),
    ],
)
def test_what_is_wrong_in_ones_own_is_one_line(
    folder: Path, file: str, instead_of: str, there_is: str, says: str
) -> None:
    text = (folder / file).read_text()
    assert instead_of in text
    (folder / file).write_text(text.replace(instead_of, there_is))
    assert re.search(says, refused(folder))


def test_an_environment_that_hangs_at_its_first_reset_is_told_where(folder: Path) -> None:
    text = (folder / "my_env.py").read_text()
    (folder / "my_env.py").write_text(text.replace("super().reset(seed=seed)", "__import__('time').sleep(99)"))
    done = headrace(folder, "train", "own.toml", "--set", "actors.step_timeout_s=1")
    assert done.returncode == 1
    assert re.fullmatch(
        r"headrace: environment 'my_env:Catch' number 0 hangs: .* in my_env\.py line 14 .*step_timeout_s = 1\)\n",
        done.stderr,
    )


def test_an_installed_package_offers_its_algorithm_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = folder / "own-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[headrace.algorithms]\nreinforce = reinforce:Reinforce\n")
    says = "algorithm.name 'reinforce' is unknown; known: dqn, grpo, ppo, r2d2, sac"
    assert says in refused(folder, "--set", "algorithm.name=reinforce"), "its folder is not on the path yet"
    monkeypatch.setenv("PYTHONPATH", str(folder))
    named = ["--set", "algorithm.name=reinforce", "--set", "run.total_steps=1024", "--run-dir", "r"]
    done = headrace(folder, "train", "own.toml", *named)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'name = "reinforce"' in (folder / "r" / "config.toml").read_text()
    assert "did you mean 'reinforce'" in refused(folder, "--set", "algorithm.name=reinforcd")
