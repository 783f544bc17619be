"""What the README tells people to type exists: commands, their options, make targets, presets, files."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.launch.cli import COMMANDS
from headrace.launch.load import load

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[list[str]]:
    """Every `headrace ...` and `make ...` in fenced blocks, as words; a line that ends in a backslash goes on."""
    found = []
    for language, block in re.findall(r"^```([a-z]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language in ("python", "toml"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables set for the command
                words = words[1:]
            if words and Path(words[0]).name in ("headrace", "make"):
                found.append([Path(words[0]).name, *words[1:]])
    return found


def check(words: list[str]) -> None:
    """Raises AssertionError or SystemExit (argparse) for a command that does not exist or does not parse."""
    program, *rest = words
    if program == "make":
        for target in (word for word in rest if "=" not in word and not word.startswith("-")):
            assert target in TARGETS, f"make {target}: no such target"
        return
    if not rest or rest[0].startswith("-"):
        assert not rest or rest[0] in ("--help", "--version")
        return
    name, *arguments = rest
    assert name in COMMANDS, f"headrace {name}: no such command"
    parser = argparse.ArgumentParser(prog=f"headrace {name}", allow_abbrev=False)
    import_module(f"headrace.{COMMANDS[name][0]}").add_arguments(parser)
    args = parser.parse_args([word for word in arguments if word != "--help"])
    if name == "train" and args.preset is not None and not args.preset.endswith(".toml"):
        load(args.preset, args.overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists(page):
    for words in commands(page.read_text()):
        check(words)


def test_the_readme_says_where_the_command_is_after_make_demo():
    found = re.search(r"^BIN := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    before_its_first_use = (ROOT / "README.md").read_text().partition("headrace presets")[0]
    assert f"`{found[1]}/headrace`" in before_its_first_use
    assert f"`source {found[1]}/activate`" in before_its_first_use


def test_relative_links_of_a_page_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


def test_commands_are_found():
    text = "```sh\n$ make demo ARGS='--x 1'  # a comment\nTMPDIR=/tmp .venv/bin/headrace train \\\n  x\nls\n```\n"
    assert commands(text) == [["make", "demo", "ARGS=--x 1"], ["headrace", "train", "x"]]


@pytest.mark.parametrize(
    "line",
    ["make coffee", "headrace fly", "headrace train --quickly", "headrace train cartpole-pppo", "headrace evaluate",
     "headrace train cartpole-ppo --set run.sede=1"],
)  # fmt: skip
def test_a_wrong_command_is_noticed(line):
    with pytest.raises((AssertionError, SystemExit, UsageError)):
        check(line.split())


def test_exactness_is_not_promised_together_with_kills():
    """The state of its environments dies with an actor: both pages that promise either say so beside it."""
    for page, says in (("README.md", "Exact to the bit is a run in which nothing dies"),
                       ("docs/architecture.md", '"Bit for bit" holds for a run in which nothing dies')):  # fmt: skip
        assert says in " ".join((ROOT / page).read_text().split())
