"""Files of the repository, and names within them, that pages point at are there: an equation's function above all."""

from __future__ import annotations

import re

import pytest

from tests.pages import ROOT, all_pages

_TOP = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."))
#: `algorithms/ppo.py: gae`, `learner/replay.py`, `bench/results/own-tasks*.json`
_FILE = re.compile(rf"`((?:{_TOP})/[\w./*-]+\.(?:py|toml|json|yml|yaml|md))(?:: =?([\w.]+))?`")


def missing(text: str) -> list[str]:
    """What ``text`` of a page points at and is not there."""
    found = []
    for path, name in _FILE.findall(text):
        files = sorted(ROOT.glob(path))
        if not files:
            found.append(path)
        elif name and not all(defined(part, files[0].read_text()) for part in name.split(".")):
            found.append(f"{path}: {name}")
    return found


def defined(name: str, source: str) -> bool:
    return re.search(rf"^\s*(?:async )?(?:def|class) {name}\b|^\s*{name}\b[^=\n]*=", source, re.M) is not None


@pytest.mark.parametrize("name", all_pages())
def test_what_a_page_points_at_is_there(name: str) -> None:
    assert not missing((ROOT / name).read_text())


def test_what_is_not_there_is_noticed() -> None:
    text = "`algorithms/ppo.py: gae`, `algorithms/ppo.py: gea`, `learner/nothing.py`, `bench/results/learning-*.json`"
    assert missing(text) == ["algorithms/ppo.py: gea", "learner/nothing.py"]
