"""What pages tell people to type exists: commands, their options, make targets, presets, files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.launch.cli import COMMANDS
from headrace.launch.load import load
from tests.pages import SHOWN, Block, all_pages, page, parsed

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
#: A page shows what is said of this one.
WRONG_ON_PURPOSE = "algorithm.learning_rat=0.01"
#: Blocks of these hold no commands.
NO_COMMANDS = SHOWN | {"python"}


def commands(blocks: Iterable[Block]) -> list[list[str]]:
    """Every `headrace ...` and `make ...` in fenced blocks, as words."""
    found = []
    for block in blocks:
        if block.language in NO_COMMANDS:
            continue
        for words in block.commands:
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


@pytest.mark.parametrize("name", all_pages())
def test_every_command_of_a_page_exists(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # a page's files are there when its commands are typed
    written = page(name)
    written.write_files(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for words in commands(written.blocks):
        if WRONG_ON_PURPOSE not in words:
            check(words)


def test_the_readme_says_where_the_command_is_after_make_demo():
    found = re.search(r"^BIN := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    before_its_first_use = (ROOT / "README.md").read_text().partition("headrace presets")[0]
    assert f"`{found[1]}/headrace`" in before_its_first_use
    assert f"`source {found[1]}/activate`" in before_its_first_use


def test_relative_links_of_a_page_lead_somewhere():
    for path in map(ROOT.joinpath, all_pages()):
        for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            assert "://" in link or (path.parent / link).exists(), f"{path.name}: {link}"


def test_commands_are_found():
    text = "```sh\n$ make demo ARGS='--x 1'  # a comment\nTMPDIR=/tmp .venv/bin/headrace train \\\n  x\nls\n```\n"
    assert commands(parsed("it.md", text).blocks) == [["make", "demo", "ARGS=--x 1"], ["headrace", "train", "x"]]


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
    for name, says in (("README.md", "Exact to the bit is a run in which nothing dies"),
                       ("docs/architecture.md", '"Bit for bit" holds for a run in which nothing dies')):  # fmt: skip
        assert says in " ".join((ROOT / name).read_text().split())


def test_the_readme_is_two_screens_and_leads_on():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    leads_to = ("first-hour", "concepts", "troubleshooting", "algorithms/index")
    assert all(f"](docs/{name}.md)" in text for name in leads_to)
