"""What of docs/ is made from code and results is as it would be made now: `make pages`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from headrace.common.metrics_table import PREFIX, TABLE
from tests.pages import ROOT


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """docs/site/generate.py."""
    folder = ROOT / "docs" / "site"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("generate", folder / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("metrics_page", "results_tables"):
        sys.modules.pop(name, None)


def test_pages_are_as_they_would_be_made_now(site: ModuleType) -> None:
    old = [path.name for path, text in site.pages().items() if not path.exists() or path.read_text() != text]
    assert not old, f"{', '.join(old)}: run `make pages`"


def test_every_metric_has_a_row() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"| `{PREFIX}{metric.name}` | {metric.kind} |" in text for metric in TABLE)


def test_a_metric_without_a_heading_is_noticed(site: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.metrics_page, "GROUPS", {"Actors": ("actor_",)})
    with pytest.raises(ValueError, match="no heading"):
        site.metrics_page.written()


def test_a_result_that_changed_changes_its_page(
    site: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "algorithms" / "grpo.md").read_text()
    results = tmp_path / "bench" / "results"
    results.mkdir(parents=True)
    kept = (ROOT / "bench" / "results" / "learning-cartpole-grpo.json").read_text()
    (results / "learning-cartpole-grpo.json").write_text(kept.replace('"worst_seed": 500.0', '"worst_seed": 12.5'))
    monkeypatch.setattr(site.results_tables, "ROOT", tmp_path)
    assert "| 12.5 |" in site.results_tables.written(text)
