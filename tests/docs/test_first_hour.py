"""docs/first-hour.md, typed as it stands by a newcomer: an empty folder, an empty virtual environment, a copy of
this checkout to install from, one shell."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.installing import copy_sources
from tests.pages import ROOT, page

PAGE = page("docs/first-hour.md")
#: The one command of the page that is wrong on purpose.
WRONG = "algorithm.learning_rat=0.01"
#: A newcomer's machine does its part within so long; a busy one's within more.
LIMIT_S = 900.0


@dataclass(frozen=True)
class Typed:
    """A command, what it printed, and its exit code."""

    line: str
    said: str
    code: int


def shell(lines: list[str], folder: Path) -> list[Typed]:
    """Type ``lines`` into one bash, as ``folder``'s owner, who has Python and nothing else of ours."""
    script = "".join(f"echo; echo @begin {i}; {line}\ncode=$?; echo; echo @end $code\n" for i, line in enumerate(lines))
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    pinned = str(ROOT / "constraints.txt")
    env = kept | {"PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin", "UV_CONSTRAINT": pinned, "PIP_CONSTRAINT": pinned}
    with subprocess.Popen(
        ["bash"],
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as bash:
        try:
            said, _ = bash.communicate(script, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(bash.pid, signal.SIGKILL)
            raise
    parts = said.split("\n@begin ")[1:]
    assert len(parts) == len(lines), said
    found = []
    for line, part in zip(lines, parts, strict=True):
        text, _, code = part.partition("\n")[2].rpartition("\n@end ")
        found.append(Typed(line, text, int(code)))
    return found


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Typed]]:
    """The folder afterwards, and every command by its line."""
    folder = tmp_path_factory.mktemp("hour")
    copy_sources(folder / "headrace")
    PAGE.write_files(folder)
    lines = [line for block in PAGE.blocks if block.language == "console" for line in block.lines]
    return folder, {typed.line: typed for typed in shell([*lines, "which headrace python"], folder)}


pytestmark = pytest.mark.timeout(LIMIT_S + 60)


def test_every_command_does_what_it_should(hour: tuple[Path, dict[str, Typed]]) -> None:
    folder, typed = hour
    for command in typed.values():
        assert command.code == (2 if WRONG in command.line else 0), f"{command.line}\n{command.said}"
        if " train " in command.line and WRONG not in command.line:
            assert "greedy" in command.said, command.line
    assert typed["which headrace python"].said.split() == [f"{folder}/.venv/bin/headrace", f"{folder}/.venv/bin/python"]


def test_what_is_wrong_is_the_line_that_the_page_shows(hour: tuple[Path, dict[str, Typed]]) -> None:
    (line,) = (command.said.strip() for command in hour[1].values() if WRONG in command.line)
    assert line in "\n".join(block.text for block in PAGE.blocks if block.language == "text")


def test_the_first_agent_is_good_and_can_be_looked_at(hour: tuple[Path, dict[str, Typed]]) -> None:
    folder, typed = hour
    assert json.loads((folder / "first" / "result.json").read_text())["evaluation"]["mean"] > 400
    small = next(command.said for line, command in typed.items() if line.endswith("--json"))
    assert json.loads(small[small.index("{") :])["mean"] > 200
    assert float(typed["python act.py"].said.split()[-1]) > 200
    for picture in ("first/returns.png", "first/final.gif", "small.gif", "compared/compare.png"):
        with Image.open(folder / picture) as image:
            assert min(image.size) >= 200, picture


def test_seeds_are_compared_and_the_room_is_kept_warm(hour: tuple[Path, dict[str, Typed]]) -> None:
    folder, _ = hour
    found = json.loads((folder / "compared" / "compare.json").read_text())
    assert {name: len(side["runs"]) for name, side in found["sides"].items()} == {"usual": 3, "careful": 3}
    assert "algorithm.clip" in found["settings"]
    assert json.loads((folder / "room" / "result.json").read_text())["evaluation"]["mean"] > 70


def test_the_shell_tells_commands_apart(tmp_path: Path) -> None:
    assert shell(["echo a; false", "echo b >&2", shlex.join(["cd", "/"])], tmp_path) == [
        Typed("echo a; false", "a\n", 1), Typed("echo b >&2", "b\n", 0), Typed("cd /", "", 0),
    ]  # fmt: skip
