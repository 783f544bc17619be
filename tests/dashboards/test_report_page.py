"""The page of `headrace report` in a real headless Chromium: it asks for nothing, runs nothing, and is readable, light
or dark, on a wide screen and a narrow one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.observe.report.page import render
from tests.observe.reported import HOSTILE, findings

from .renderer import look, missing


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("word", ["CartPole-v1", HOSTILE], ids=["plain", "hostile"])
def test_the_page_is_whole_readable_and_quiet(tmp_path: Path, word: str) -> None:
    if absent := missing():
        assert os.environ.get("CI") != "true", f"CI needs {' '.join(absent)} (apt-get install)"
        pytest.skip(f"the report's page is NOT LOOKED AT: apt-get install {' '.join(absent)}")
    page = tmp_path / "report.html"
    page.write_text(render(findings(word=word)))
    seen = look(page, tmp_path)
    assert seen["errors"] == []
    assert seen["asked"] == []
    drawn: dict[str, set[str]] = {"light": set(), "dark": set()}
    for one in seen["looks"]:
        assert len(one["pictures"]) == 3
        assert all(picture["width"] > 100 for picture in one["pictures"])
        drawn[one["scheme"]] |= {picture["source"] for picture in one["pictures"]}
        assert one["sideways"] <= 0, "what is wide scrolls by itself"
        assert one["faintest"]["ratio"] >= 4.5, one["faintest"]
    assert len(drawn["light"]) == len(drawn["dark"]) == 3
    assert not drawn["light"] & drawn["dark"], "a dark page has pictures of its own"
