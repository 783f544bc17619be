"""The commands of pages that name this file, typed in their order in an empty folder. Trainings are cut short: that
they begin, make versions, end and go on is what is tried here; whether they learn, in tests/learning and bench/."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.runs import headrace
from tests.pages import ROOT, all_pages, page

OURS = "tests/docs/test_commands.py"
#: Steps of a training, and of one that goes on: a few versions. Replay teaches sooner, and less often.
STEPS, MORE = "run.total_steps=2048", "run.total_steps=4096"
SOONER = ("algorithm.min_size=64", "algorithm.samples_per_insert=8")
REPLAY = ("dqn", "sac", "r2d2")


def typed(name: str) -> list[list[str]]:
    """What is to be run of a page, as words."""
    return [words for block in page(name).blocks if OURS in block.run_by.split() for words in block.commands]


def shortened(words: list[str]) -> list[str]:
    """``words`` of a training with an end that is near."""
    if words[1] != "train":
        return words
    if "--resume" in words:
        return [MORE if word.startswith("run.total_steps=") else word for word in words]
    sets = [STEPS, *(SOONER if words[2].endswith(REPLAY) else ())]
    return [*words, *(word for one in sets for word in ("--set", one)), "--episodes", "1"]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """``headrace`` is that of this checkout, and so are its benches; what else there is has bash's meaning (``>``)."""
    if words[0] == "headrace":
        return headrace(*shortened(words)[1:], cwd=folder)
    if words[0] == "python":
        words, folder = [sys.executable, *words[1:]], ROOT
    line = " ".join(word if word == ">" else shlex.quote(word) for word in words)
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in all_pages() if typed(name)])
def test_the_commands_of_a_page(name: str, tmp_path: Path) -> None:
    page(name).write_files(tmp_path)
    for words in typed(name):
        done = run(words, tmp_path)
        assert done.returncode == 0, f"{name}: {shlex.join(words)}\n{done.stdout}{done.stderr}"
        if words[:2] == ["headrace", "train"]:
            assert "greedy evaluation" in done.stdout
