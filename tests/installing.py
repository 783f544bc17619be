"""What of this checkout is installed: a copy, so that nothing of it leads back here."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.pages import ROOT

#: What the source of a wheel is made of besides its packages (.dockerignore lists the same).
_SOURCES = ("pyproject.toml", "README.md", "LICENSE")


def copy_sources(into: Path) -> None:
    """What a wheel is made of, below ``into``, which is made."""
    into.mkdir()
    for folder in (path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"):
        shutil.copytree(folder, into / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _SOURCES:
        shutil.copy(ROOT / name, into)
