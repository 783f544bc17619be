"""Every page of the docs as tests read them: its fenced blocks, and who runs each of them.

    page("docs/export.md").console()          the commands of its ```console blocks, as words
    page("docs/own-network.md").files()       what its blocks write, by the name in their first line
    block.run_by, block.not_run               what a comment above the block says, or one at the top of its page

A block that a person could type or run says, in a comment that no reader sees, which test runs it or why none does:

    <!-- run by: tests/launch/test_export.py -->
    <!-- not run: needs a GPU -->
    <!-- every block is run by: tests/cluster/test_compose.py -->
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What stands in these is looked at, or is a file; a file is written by whoever runs the page.
SHOWN = frozenset({"text", "toml", "math", "yaml", "json", "Dockerfile"})
_PARTS = re.compile(
    r"<!-- (?P<mark>run by|not run|every block is run by): (?P<said>[^>]*?) -->"
    r"|^```(?P<language>\w*)\n(?P<text>.*?)^```$"
    r"|^## (?P<heading>[^\n]+)",
    re.M | re.S,
)
_FILE = re.compile(r"# (\S+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block. ``section``: the heading of level two above it. ``run_by``: a test, or "" where ``not_run``
    says why there is none; both empty where nobody said anything."""

    page: str
    section: str
    language: str
    text: str
    run_by: str = ""
    not_run: str = ""

    @property
    def lines(self) -> list[str]:
        """What is typed, a line that ends in a backslash joined with the next, prompts and comments left out."""
        joined = self.text.replace("\\\n", " ").splitlines()
        typed = (line.removeprefix("$ ") for line in joined)
        return [line for line in typed if line.strip() and not line.startswith("#")]

    @property
    def commands(self) -> list[list[str]]:
        """The same as words."""
        return [words for line in self.lines if (words := shlex.split(line, comments=True))]

    @property
    def file(self) -> tuple[str, str] | None:
        """The name in a first line such as ``# my_env.py``, and the text below it."""
        found = _FILE.match(self.text)
        return (found[1], self.text[found.end() :]) if found else None


@dataclass(frozen=True)
class Page:
    name: str
    blocks: tuple[Block, ...]

    def console(self, section: str | None = None) -> list[list[str]]:
        """The commands of ```console blocks, of one section or of all."""
        return [
            words
            for block in self.blocks
            if block.language == "console" and section in (None, block.section)
            for words in block.commands
        ]

    def files(self) -> dict[str, str]:
        """What the page writes: name -> text."""
        return dict(block.file for block in self.blocks if block.file)

    def write_files(self, folder: Path) -> None:
        for name, text in self.files().items():
            (folder / name).write_text(text)


def page(name: str) -> Page:
    """``name`` is the page's path below the repository."""
    return parsed(name, (ROOT / name).read_text())


def parsed(name: str, text: str) -> Page:
    blocks, section, run_by, above = list[Block](), "", "", {"run by": "", "not run": ""}
    for part in _PARTS.finditer(text):
        if part["heading"]:
            section = part["heading"]
        elif part["mark"] == "every block is run by":
            run_by = part["said"]
        elif part["mark"]:
            above = {**above, part["mark"]: " ".join(part["said"].split())}
        else:
            own = above["run by"] or ("" if above["not run"] else run_by)
            blocks.append(Block(name, section, part["language"], part["text"], own, above["not run"]))
            above = {"run by": "", "not run": ""}
    return Page(name, tuple(blocks))


def all_pages() -> list[str]:
    """Every page that is part of the site, and those at the top of the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)
