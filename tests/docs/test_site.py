"""The docs as a site: built strictly, with nothing that is loaded from elsewhere, and formulas that are formulas."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.pages import ROOT

#: What the site is made of, besides the files of the repository that its pages link to.
_SOURCES = ("mkdocs.yml", "README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")


def build(folder: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--config-file",
        str(folder / "mkdocs.yml"),
        "--site-dir",
        str(into),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    done = build(ROOT, into)
    assert done.returncode == 0, done.stdout + done.stderr
    return into


class Loaded(HTMLParser):
    """What a browser fetches to show a page: not where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get("href") or "")
        elif tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found.append(given.get("src") or "")


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        abroad = [url for url in Loaded(page.read_text()).found if "//" in url]
        assert not abroad, f"{page.name}: {abroad}"
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet.name


def test_formulas_are_drawn_by_the_browser(site: Path) -> None:
    for name in ("ppo", "recurrent-ppo", "grpo", "dqn", "r2d2", "sac"):
        text = (site / "algorithms" / f"{name}.html").read_text()
        assert text.count('display="block"') >= 2, name
        assert "<mfrac>" in text or "<msub>" in text
        assert "$" not in re.sub(r"<(script|code|pre)\b.*?</\1>", "", text, flags=re.S), f"{name}: a dollar is left"


def test_search_knows_every_page(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text()
    for page in ("first-hour.html", "algorithms/sac.html", "troubleshooting.html", "changelog.html", "index.html"):
        assert page in index or page == "index.html", page


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[there](nowhere.md)", "nowhere.md"),
        ("[there](carriers.md#nowhere)", "nowhere"),
        ("[there](../launch/nowhere.py)", "nowhere.py"),
        ("$\\nowhere{x}$", "unknown"),
    ],
)
def test_what_leads_nowhere_ends_the_build(tmp_path: Path, text: str, says: str) -> None:
    """A small site with the same settings and hooks."""
    for name in _SOURCES:
        shutil.copy(ROOT / name, tmp_path)
    settings = (tmp_path / "mkdocs.yml").read_text().partition("\nnav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(settings.replace("omitted_files: warn", "omitted_files: ignore"))
    for name in _SOURCES[1:]:
        (tmp_path / name).write_text("# A page\n")
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "docs" / "site", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "docs" / "carriers.md").write_text("# Carriers\n")
    (tmp_path / "docs" / "it.md").write_text(f"# It\n\n{text}\n")
    done = build(tmp_path, tmp_path / "built")
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
