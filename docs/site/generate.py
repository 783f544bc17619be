"""Writes what of docs/ is made from code and results: `make pages`. Tests compare (tests/docs/test_generated.py)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import metrics_page
import results_tables

DOCS = Path(__file__).resolve().parents[1]


def pages() -> dict[Path, str]:
    """File -> what it should hold."""
    found = {path: results_tables.written(path.read_text()) for path in sorted(DOCS.rglob("*.md"))}
    return found | {DOCS / "metrics.md": metrics_page.written()}


def main() -> None:
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
