"""docs/cluster.md as a test reads it: the commands of each section, as a person would paste them."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"


def sections(page: Path = PAGE) -> dict[str, list[str]]:
    """Heading -> the commands in its ```sh blocks, in order; a line that ends in a backslash goes on."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        found[heading] = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]
    return found


def block(heading: str, language: str) -> str:
    """The first block of another language in a section."""
    part = PAGE.read_text().partition(f"## {heading}\n")[2]
    found = re.search(rf"^```{language}\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    assert found, f"{heading}: no block of {language}"
    return found[1]
