"""The bench of images: every record it puts is taken in, and its account of the time is whole."""

from __future__ import annotations

from argparse import Namespace
from types import ModuleType

import pytest

from .test_side_by_side import load


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(monkeypatch, "image_rate")


def test_what_is_put_is_taken_in_and_timed(bench: ModuleType) -> None:
    wanted = Namespace(records=7, repeats=1, producers=2, only=["noise", "local", "live"])
    ((what, (found,)),) = bench.run(wanted).items()
    assert what == "noise, local, live"
    assert found["frames_s"] > 0
    assert {"copy", "crc", "join"} <= found["learner_ms"].keys()
    assert {"copy", "crc"} <= found["producers_ms"].keys()
    assert 0 < max(found["shares"].values()) <= 1.1
    kept = bench.report({what: [found]})["cases"][what]
    assert kept["all_frames_s"] == [round(found["frames_s"])]


def test_medians_are_taken_leaf_by_leaf(bench: ModuleType) -> None:
    rows = [{"a": {"b": 1.0, "c": 5.0}, "w": "x"}, {"a": {"b": 3.0}, "w": "y"}, {"a": {"b": 2.0}, "w": "y"}]
    assert bench.middle(rows) == {"a": {"b": 2.0}, "w": "y"}
