"""Every panel, drawn in a real headless Chromium from a real system's Prometheus: what is blank, or skipped, fails.

Run by `make test-dashboards`: the first time it fetches 650 MB of packages. With PICTURE=FILE.png it trains LunarLander
for some minutes instead and leaves the docs' picture there.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .board import EMPTY_PANELS, dashboard, panels
from .live import Live, live
from .renderer import Picture, draw, missing

#: Where the picture of the docs goes, and how long the run in it is watched.
PICTURE, PICTURE_S = os.environ.get("PICTURE"), float(os.environ.get("PICTURE_S", "240"))
#: A run worth a look: the preset lunarlander-ppo by single roles.
LUNARLANDER = ("task.env=LunarLander-v3", "algorithm.gamma=0.999", "algorithm.gae_lambda=0.98",
               "algorithm.hidden=[64, 64]", "algorithm.epochs=10", "algorithm.minibatch=256", "actors.envs=8",
               "actors.fragment_steps=128", "run.checkpoint_every_s=30", "run.total_steps=12_000_000")  # fmt: skip
#: Down to the first panels of the second row.
PICTURE_ROWS = 22

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def drawn(
    request: pytest.FixtureRequest, kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """(the report on the committed dashboard, the system it was drawn from)."""
    if absent := missing():
        assert os.environ.get("CI") != "true", f"CI needs {' '.join(absent)} (apt-get install)"
        pytest.skip(f"the dashboard is NOT DRAWN: apt-get install {' '.join(absent)} fonts-inter")
    folder = tmp_path_factory.mktemp("render")
    if PICTURE is None:
        system: Live = request.getfixturevalue("system")
        yield draw(Picture(system.prometheus.url, 40, folder / "dashboard.png"), folder), system
        return
    with live(folder, kafka_bootstrap, *LUNARLANDER) as system:
        system.wait_for("headrace:bottleneck:share1m")
        time.sleep(PICTURE_S)
        yield draw(Picture(system.prometheus.url, PICTURE_S, Path(PICTURE), PICTURE_ROWS), folder), system


def test_the_page_loads_without_errors(drawn: tuple[Any, Live]) -> None:
    report, _ = drawn
    assert report["errors"] == []
    assert [panel["title"] for panel in report["panels"]] == [panel["title"] for panel in panels()]


@pytest.mark.parametrize("number", range(len(panels())), ids=[panel["title"] for panel in panels()])
def test_a_panel_is_painted(drawn: tuple[Any, Live], number: int) -> None:
    panel = drawn[0]["panels"][number]
    assert panel["problems"] == []
    assert panel["empty"] is False or panel["title"] in EMPTY_PANELS


def fault(panel: Any, what: str) -> None:
    """Spoil a panel the way a slip would."""
    defaults, target = panel["fieldConfig"]["defaults"], panel["targets"][0]
    match what:
        case "syntax":
            target["expr"] += ")"
        case "NaN only":
            target["expr"] = "vector(0) / 0"
            del panel["targets"][1:]
        case "variable":
            target["expr"] = target["expr"].replace("$run", "$runs")
        case "type":
            panel["type"] = "timeserie"
        case "option":
            defaults["custom"]["lineStile"] = {"fill": "dash"}
        case "override":
            panel["fieldConfig"]["overrides"] = [{"matcher": {"id": "byNames", "options": "x"}, "properties": []}]
        case "transformation":
            panel["transformations"] = [{"id": "limits", "options": {}}]
        case "invisible":
            defaults["custom"] |= {"lineWidth": 0, "fillOpacity": 0}


FAULTS = ("syntax", "NaN only", "variable", "type", "option", "override", "transformation", "invisible")


def test_a_spoilt_panel_is_noticed(drawn: tuple[Any, Live], tmp_path: Path) -> None:
    """Each fault planted in a panel of curves of its own, all drawn at once."""
    board = copy.deepcopy(dashboard())
    curves = [panel for panel in board["panels"] if panel["type"] == "timeseries" and len(panel["targets"]) == 2]
    spoilt = dict(zip([panel["id"] for panel in curves], FAULTS, strict=False))
    for panel in curves[: len(FAULTS)]:
        fault(panel, spoilt[panel["id"]])
    (tmp_path / "spoilt.json").write_text(json.dumps(board))
    picture = Picture(drawn[1].prometheus.url, 40, tmp_path / "spoilt.png", dashboard=tmp_path / "spoilt.json")
    report = draw(picture, tmp_path)
    noticed = {spoilt[p["id"]] for p in report["panels"] if p["id"] in spoilt and (p["problems"] or p["empty"])}
    assert noticed == set(FAULTS)
