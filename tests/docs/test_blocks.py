"""Every block of every page that a person could type is run by a test, or says why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import ROOT, SHOWN, Block, all_pages, page, parsed

#: A test that types every block which names it, wherever that is.
RUNS_WHAT_NAMES_IT = 'OURS = "tests/docs/test_commands.py"'


def wrong(block: Block) -> str | None:
    """Why nobody may rely on ``block``."""
    if block.language in SHOWN:
        return None
    where = f"{block.page}, {block.section!r}: {block.text[:60]!r}"
    if block.not_run:
        return None if len(block.not_run.split()) > 2 else f"{where}: not run, and no reason"
    if not block.run_by:
        return f"{where}: say above it `<!-- run by: tests/... -->` or `<!-- not run: reason -->`"
    for runner in block.run_by.split():
        if not (ROOT / runner).is_file():
            return f"{where}: is run by {runner}, which is not there"
        if not mentions((ROOT / runner).read_text(), block):
            return f"{where}: {runner} does not read {block.page}, nor does it type this"
    return None


def mentions(text: str, block: Block) -> bool:
    """Whether a test's text names the block's page, or has each of its commands itself (as .ci/run does)."""
    return Path(block.page).name in text or RUNS_WHAT_NAMES_IT in text or all(line in text for line in block.lines)


@pytest.mark.parametrize("name", all_pages())
def test_every_block_of_a_page_is_run_or_says_why_not(name: str) -> None:
    problems = [problem for block in page(name).blocks if (problem := wrong(block))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", all_pages())
def test_every_block_of_a_page_is_seen(name: str) -> None:
    """Fences that the extractor would not understand: indented, or never closed."""
    fences = re.findall(r"^\s*(?:```|~~~)", (ROOT / name).read_text(), re.M)
    assert len(fences) == 2 * len(page(name).blocks)


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("", "say above it"),
        ("<!-- not run: -->\n", "say above it"),
        ("<!-- not run: no -->\n", "no reason"),
        ("<!-- run by: tests/nothing.py -->\n", "is not there"),
        ("<!-- run by: tests/test_architecture.py -->\n", "does not read"),
        ("<!-- not run: a GPU is needed -->\n", None),
        ("<!-- every block is run by: tests/docs/test_commands.py -->\n# Title\n\n", None),
    ],
)
def test_the_rule_itself(mark: str, says: str | None) -> None:
    (block,) = parsed("docs/it.md", f"{mark}```console\n$ headrace fly\n```\n").blocks
    found = wrong(block)
    assert found is None if says is None else found and says in found


def test_what_a_page_holds_is_found() -> None:
    console = "<!-- run by: a.py -->\n```console\n$ headrace train \\\n    x  # go\n```\n"
    text = f"{console}## Files\n```python\n# my.py\nx = 1\n```\n"
    found = parsed("it.md", text)
    assert found.console() == [["headrace", "train", "x"]]
    assert found.console("Files") == []
    assert found.files() == {"my.py": "x = 1\n"}
    assert [block.run_by for block in found.blocks] == ["a.py", ""]
