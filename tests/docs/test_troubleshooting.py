"""docs/troubleshooting.md quotes lines that the code says, and advice that it gives."""

from __future__ import annotations

import ast
import re
from typing import TypeGuard

import pytest

from headrace.observe.bottleneck import ADVICE
from tests.pages import ROOT, page

PAGE = "docs/troubleshooting.md"
_PACKAGES = ("common", "algorithms", "tasks", "actor", "learner", "paramserver", "observe", "launch")


def template(node: ast.Constant | ast.JoinedStr) -> str:
    """A string of the code with … for each hole, however many stand side by side."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return re.sub("…+", "…", "".join(parts))


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Every string of our packages."""
    files = (file for package in _PACKAGES for file in (ROOT / package).rglob("*.py"))
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return [template(node) for node in nodes if is_text(node)]


def is_text(node: ast.AST) -> TypeGuard[ast.Constant | ast.JoinedStr]:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def quotes(line: str, said: str) -> bool:
    """Whether ``line`` is what ``said`` says: its own … may stand for more than one hole and what is between them."""
    pattern = ".*".join(re.escape(part) for part in line.split("…"))
    return re.search(pattern, said) is not None


LINES = [line for block in page(PAGE).blocks if block.language == "text" for line in block.text.splitlines()]


def test_there_are_lines() -> None:
    assert len(LINES) > 30


@pytest.mark.parametrize("line", LINES)
def test_each_line_that_is_quoted_is_one_that_the_code_says(line: str, said: list[str]) -> None:
    assert any(quotes(line, text) for text in said), line


def test_a_line_that_nobody_says_is_noticed(said: list[str]) -> None:
    assert not any(quotes("task.env …: Atari games need a joystick; …", text) for text in said)


def test_the_verdicts_are_those_of_status() -> None:
    text = (ROOT / PAGE).read_text()
    assert all(f"| {verdict} | {advice} |" in text for verdict, advice in ADVICE.items())
