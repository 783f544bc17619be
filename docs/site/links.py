"""Brings what stands outside docs/ into the site, so that the same links lead somewhere in a checkout and on the site.

README.md is its first page; SECURITY.md, CONTRIBUTING.md and CHANGELOG.md are pages; any other file of the repository
that a page links to is copied as it is, below files/. A link to a file that is not there stays as it is, and ends the
strict build.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
#: File of the repository -> page of the site.
PAGES = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^(```.*?^```)", re.M | re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for target in sorted(linked_files()):
        files.append(File.generated(config, f"files/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]  # of one page
    return rewritten(markdown, page.file.src_uri)


def rewritten(markdown: str, page: str) -> str:
    """``markdown`` of the site's ``page`` with each link to a file of the repository as the site has it."""
    folder = posixpath.dirname(page)

    def link(found: re.Match[str]) -> str:
        target = in_site(found[2], page)
        return found[0] if target is None else f"{found[1]}{posixpath.relpath(target, folder or '.')}{found[3]}"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def in_site(link: str, page: str) -> str | None:
    """Where ``link`` on the site's ``page`` leads within the site; None where it is right as it stands."""
    path, mark, anchor = link.partition("#")
    source = next((source for source, at in PAGES.items() if at == page), f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not path or "://" in link or link.startswith("mailto:") or not (ROOT / target).is_file():
        return None
    if target in PAGES:
        return PAGES[target] + mark + anchor
    return (target.removeprefix("docs/") if target.startswith("docs/") else f"files/{target}") + mark + anchor


def linked_files() -> set[str]:
    """Files of the repository that pages link to and that are no pages."""
    sources = [*PAGES.items(), *((f"docs/{page}", page) for page in _pages())]
    found = set()
    for source, page in sources:
        text = "".join(part for part in _FENCE.split((ROOT / source).read_text()) if not part.startswith("```"))
        targets = (in_site(link, page) for _, link, _ in _LINK.findall(text))
        found |= {target.partition("#")[0] for target in targets if target and target.startswith("files/")}
    return {target.removeprefix("files/") for target in found}


def _pages() -> list[str]:
    return [os.fspath(path.relative_to(ROOT / "docs")) for path in sorted((ROOT / "docs").rglob("*.md"))]
