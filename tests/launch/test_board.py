"""The board as a person meets it: the real command, real runs, a real headless Chromium that clicks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from headrace.launch.run_dir import holder
from headrace.observe.rows import Row, last_row

from .boards import RunningBoard, board, until
from .runs import train

pytestmark = pytest.mark.timeout(300)

#: A second on a fast machine: several rows all the same.
SHORT = ["run.total_steps=30_000", "learner.device=cpu", "run.log_every_s=0.1"]
#: Runs until it is stopped.
LONG = "run.total_steps=900_000_000\nlearner.device=cpu\nrun.log_every_s=0.5"
_TIMEOUT_MS = 30_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        assert os.environ.get("CI") != "true", "CI needs chromium (apt-get install)"
        pytest.skip("the board is NOT LOOKED AT: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBoard]:
    """Finished, half-written and empty runs."""
    runs = tmp_path_factory.mktemp("board") / "runs"
    train("cartpole-ppo", runs / "finished", SHORT, "--episodes", "3")
    (runs / "finished" / "videos").mkdir()
    shutil.copy(runs / "finished" / "final.gif", runs / "finished" / "videos" / "20000.gif")
    whole = json.loads((runs / "finished" / "metrics.jsonl").read_text().splitlines()[-1])
    (runs / "half").mkdir()
    (runs / "half" / "metrics.jsonl").write_text(json.dumps({**whole, "env_steps": 128}) + '\n{"time_s": 3, "vers')
    (runs / "half" / "config.toml").write_text("[[[")
    (runs / "empty").mkdir()
    (runs / "empty" / "metrics.jsonl").write_text("")
    with board(runs) as running:
        yield running


@contextlib.contextmanager
def window(chromium: Browser, there: RunningBoard) -> Iterator[Page]:
    """The board, opened by its printed address. Nothing comes from outside, and the browser objects to nothing."""
    opened = chromium.new_page(viewport={"width": 1280, "height": 720})
    opened.set_default_timeout(_TIMEOUT_MS)
    asked, wrong = list[str](), list[str]()
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(there.url)
    yield opened
    opened.close()
    outside = [url for url in asked if not re.match(rf"(http|ws)://127\.0\.0\.1:{there.port}/|data:|blob:", url)]
    assert (outside, wrong) == ([], [])


@pytest.fixture
def page(chromium: Browser, there: RunningBoard) -> Iterator[Page]:
    with window(chromium, there) as opened:
        yield opened


def item(page: Page, name: str) -> Locator:
    return page.locator(".item").filter(has=page.locator(".name", has_text=re.compile(f"^{name}$")))


def choose(page: Page, name: str) -> None:
    item(page, name).click()
    expect(page.locator(".detail .title").first).to_have_text(name, timeout=_TIMEOUT_MS)


def painted(page: Page, chart: str) -> int:
    """Pixels of a chart that are neither empty nor grey: its curves."""
    script = """canvas => {
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let found = 0;
        for (let i = 0; i < data.length; i += 4)
        {
            const [r, g, b, alpha] = data.slice(i, i + 4);
            if (alpha > 100 && Math.max(r, g, b) - Math.min(r, g, b) > 60) found++;
        }
        return found;
    }"""
    return int(page.locator(f".chart.{chart} canvas").first.evaluate(script))


def test_a_finished_run_is_shown_whole(page: Page, there: RunningBoard) -> None:
    choose(page, "finished")
    path = there.runs / "finished"
    last, result = last_row(path / "metrics.jsonl"), json.loads((path / "result.json").read_text())
    assert last is not None
    expect(page.locator(".detail .head")).to_contain_text("PPO on CartPole-v1")
    expect(page.locator(".detail .head .chip")).to_have_text("finished")
    tiles = page.locator(".tiles")
    expect(tiles).to_contain_text(f"{result['evaluation']['mean']:,.1f}")
    expect(tiles).to_contain_text(f"{last['return_mean']:,.1f}")
    expect(tiles).to_contain_text(f"{last['version']:,}")
    until(lambda: painted(page, "tall") > 100, "the return is drawn")
    until(lambda: painted(page, "low") > 50, "and the figures beneath")
    page.get_by_text("over time").click()
    until(lambda: painted(page, "tall") > 100, "over time as well")
    page.locator(".pick").first.click()
    page.get_by_role("option", name="entropy").click()
    expect(page.locator(".pick").first).to_contain_text("entropy")
    until(lambda: painted(page, "low") > 50, "any other figure")
    page.get_by_role("button", name="light or dark").click()
    expect(page.locator("body.body--dark")).to_be_visible()
    films = page.locator(".films img")
    expect(films).to_have_count(2)
    expect(page.locator(".films")).to_contain_text("at 20,000 steps")
    for film in films.all():
        film.scroll_into_view_if_needed()
        until(lambda film=film: film.evaluate("image => image.complete && image.naturalWidth") > 100, "it is loaded")
    expect(page.locator(".panels")).to_contain_text(f"{last['env_steps']:,}/{last['total_steps']:,} steps")
    page.get_by_role("tab", name="Settings").click()
    expect(page.locator(".panels")).to_contain_text('env = "CartPole-v1"')
    page.get_by_role("tab", name="Logs").click()
    expect(page.get_by_role("combobox", name="Log")).to_be_visible()
    page.get_by_role("button", name="Train on").click()
    expect(page.get_by_role("textbox", name="Settings")).to_have_value("run.total_steps=60_000")
    page.get_by_role("button", name="Cancel").click()


def test_broken_and_empty_runs_are_shown(page: Page) -> None:
    choose(page, "half")
    expect(page.locator(".detail .head .chip")).to_have_text("stopped")
    expect(page.locator(".tiles")).to_contain_text("Version")
    until(lambda: painted(page, "tall") > 20, "its only row is drawn")
    choose(page, "empty")
    expect(page.locator(".detail")).to_contain_text("it has written no row")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".q-notification")).to_contain_text("is no run directory: it holds no config.toml")


def test_runs_stand_side_by_side(page: Page) -> None:
    choose(page, "finished")
    item(page, "half").get_by_role("checkbox").click()
    grid = page.locator(".detail .grid")
    expect(grid).to_contain_text("half")
    expect(grid).to_contain_text("finished")
    assert page.url.endswith("?runs=finished%2Chalf")
    page.reload()
    expect(page.locator(".detail .grid")).to_contain_text("half")


def test_what_is_no_setting_is_said_and_nothing_is_started(page: Page, there: RunningBoard) -> None:
    before = sorted(there.runs.iterdir())
    page.get_by_role("button", name="New run").click()
    page.get_by_role("textbox", name="Settings").fill("run.sede=1")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".q-notification")).to_contain_text("unknown key run.sede")
    assert sorted(there.runs.iterdir()) == before


def test_a_run_is_started_watched_stopped_and_resumed_by_clicks_and_outlives_its_board(
    tmp_path: Path, chromium: Browser
) -> None:
    path = tmp_path / "runs" / "cartpole-ppo-1"
    with board(tmp_path / "runs") as there, window(chromium, there) as page:
        expect(page.locator(".detail")).to_contain_text("No run here yet", timeout=_TIMEOUT_MS)
        page.get_by_role("button", name="New run").click()
        page.get_by_role("textbox", name="Settings").fill(LONG)
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".detail .title").first).to_have_text(path.name, timeout=_TIMEOUT_MS)
        watches(page, path)
        stops(page, path)
        kept = newest(path)
        page.get_by_role("button", name="Resume").click()
        expect(page.locator(".head .chip")).to_have_text("training", timeout=60_000)
        until(lambda: newest(path)["learner_epoch"] == 2, "it goes on")
        assert shown(page) >= kept["version"]
    left = newest(path)
    process = holder(path)
    assert process is not None
    try:
        until(lambda: newest(path)["version"] > left["version"], "it goes on without its board")
    finally:
        process.terminate()
    said = path / "logs" / "train.log"
    until(lambda: said.read_text().count("stopped; go on with:") == 2, "and answers to its signal")


def watches(page: Page, path: Path) -> None:
    """What it does is on the page at most two seconds after it is in the file."""
    expect(page.locator(".head .chip")).to_have_text("training", timeout=60_000)
    first = until(lambda: shown(page), "a version is shown")
    until(lambda: shown(page) > first, "and a newer one")
    seen = newest(path)["version"]
    version = until(lambda: newest(path)["version"] > seen and newest(path)["version"], "a new row")
    began_s = time.monotonic()
    until(lambda: shown(page) >= version, "the row is shown")
    assert time.monotonic() - began_s < 2.0
    expect(page.locator(".pace")).to_contain_text(re.compile("too few|too slow|balanced"), timeout=60_000)


def stops(page: Page, path: Path) -> None:
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".head .chip")).to_have_text("stopped", timeout=60_000)
    assert holder(path) is None
    assert list((path / "checkpoints").glob("ckpt-*"))
    assert "stopped; go on with:" in (path / "logs" / "train.log").read_text()


def newest(path: Path) -> Row:
    row = last_row(path / "metrics.jsonl")
    assert row is not None
    return row


def shown(page: Page) -> int:
    """The version on the page, 0 while there is none."""
    text = page.locator(".tile:has(.caption:text-is('Version')) .value").inner_text().replace(",", "")
    return int(text) if text.isdecimal() else 0
