"""docs/cluster.md as a test reads it: the commands of each section, as a person would paste them."""

from __future__ import annotations

from tests.pages import page

PAGE = "docs/cluster.md"


def sections(name: str = PAGE) -> dict[str, list[str]]:
    """Heading -> the commands in its ```sh blocks, in order; a line that ends in a backslash goes on."""
    found: dict[str, list[str]] = {}
    for block in page(name).blocks:
        if block.language == "sh":
            found.setdefault(block.section, []).extend(block.lines)
    return found


def block(heading: str, language: str) -> str:
    """The first block of another language in a section."""
    return next(one.text for one in page(PAGE).blocks if (one.section, one.language) == (heading, language))
