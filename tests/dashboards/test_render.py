"""Every panel, drawn in a real headless Chromium from a real system's Prometheus: what is blank, or skipped, fails.

Run by `make test-dashboards`: the first time it fetches 650 MB of packages. With PICTURE=FOLDER it trains LunarLander for
some minutes instead and leaves the pictures of the docs there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from .board import EMPTY_PANELS, panels
from .live import Live, live
from .renderer import Picture, draw, missing

PICTURE = os.environ.get("PICTURE")
PICTURE_S = float(os.environ.get("PICTURE_S", "240"))
#: A run worth a look: `headrace train lunarlander-ppo` by single roles, slow enough to be watched.
LUNARLANDER = ("task.env=LunarLander-v3", "algorithm.gamma=0.999", "algorithm.gae_lambda=0.98", "algorithm.hidden=[64, 64]",
               "algorithm.epochs=10", "algorithm.minibatch=256", "actors.envs=8", "actors.fragment_steps=128",
               "run.checkpoint_every_s=30", "run.total_steps=6_000_000")  # fmt: skip
#: Down to the end of the second row of panels: what the README shows.
FIRST_ROWS = 13


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest, kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if absent := missing():
        assert os.environ.get("CI") != "true", f"CI needs {' '.join(absent)} (apt-get install)"
        pytest.skip(f"the dashboard is not drawn: apt-get install {' '.join(absent)} fonts-inter")
    folder = tmp_path_factory.mktemp("render")
    if PICTURE is None:
        system: Live = request.getfixturevalue("system")
        return draw(Picture(system.prometheus.url, 40, folder / "dashboard.png"), folder)
    with live(folder, kafka_bootstrap, *LUNARLANDER) as system:
        system.wait_for("headrace:bottleneck:share1m")
        time.sleep(PICTURE_S)
        out = Path(PICTURE)
        first = out / "dashboard.png"
        return draw(
            Picture(system.prometheus.url, PICTURE_S, out / "dashboard-all.png", 1.0, first, FIRST_ROWS), folder
        )


@pytest.mark.timeout(1800)
def test_the_page_loads_without_errors(report: Any) -> None:
    assert report["errors"] == []
    assert [panel["title"] for panel in report["panels"]] == [panel["title"] for panel in panels()]


@pytest.mark.parametrize("number", range(len(panels())), ids=[panel["title"] for panel in panels()])
def test_a_panel_is_painted(report: Any, number: int) -> None:
    panel = report["panels"][number]
    assert panel["problems"] == []
    empty = [target["query"] for target in panel["targets"] if target["finite"] == 0]
    assert panel["title"] in EMPTY_PANELS or not empty
