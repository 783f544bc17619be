"""The board as a person meets it: the real command, real runs, a real headless Chromium that clicks."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from headrace.launch.run_dir import holder
from headrace.observe.rows import last_row

from .boards import RunningBoard, board, until
from .runs import train

pytestmark = pytest.mark.timeout(300)

SHORT = ["run.total_steps=8192", "learner.device=cpu"]
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
    for name, end in (("half", '{"time_s": 3, "vers'), ("empty", "")):
        (runs / name).mkdir()
        rows = (runs / "finished" / "metrics.jsonl").read_text().splitlines(keepends=True)
        (runs / name / "metrics.jsonl").write_text("".join(rows[:1] if end else []) + end)
    (runs / "half" / "config.toml").write_text("[[[")
    with board(runs) as running:
        yield running


@pytest.fixture
def page(chromium: Browser, there: RunningBoard) -> Iterator[Page]:
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


def choose(page: Page, name: str) -> None:
    page.locator(".item", has_text=name).first.click()
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
    film = page.locator(".films img")
    film.scroll_into_view_if_needed()
    until(lambda: film.evaluate("image => image.complete && image.naturalWidth") > 100, "the GIF is loaded")
    expect(page.locator(".panels")).to_contain_text(f"{last['env_steps']:,}/{last['total_steps']:,} steps")
    page.get_by_role("tab", name="Settings").click()
    expect(page.locator(".panels")).to_contain_text('env = "CartPole-v1"')
    page.get_by_role("tab", name="Logs").click()
    expect(page.get_by_role("combobox", name="Log")).to_be_visible()


def test_broken_and_empty_runs_are_shown(page: Page) -> None:
    choose(page, "half")
    expect(page.locator(".detail .head .chip")).to_have_text("stopped")
    expect(page.locator(".tiles")).to_contain_text("Version")
    choose(page, "empty")
    expect(page.locator(".detail")).to_contain_text("it has written no row")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".q-notification")).to_contain_text("is no run directory: it holds no config.toml")


def test_runs_stand_side_by_side(page: Page) -> None:
    choose(page, "finished")
    page.locator(".item", has_text="half").get_by_role("checkbox").click()
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


def test_a_run_is_started_watched_stopped_and_resumed_by_clicks(page: Page, there: RunningBoard) -> None:
    page.get_by_role("button", name="New run").click()
    page.get_by_role("textbox", name="Settings").fill(LONG)
    page.get_by_role("button", name="Start").click()
    path = there.runs / "cartpole-ppo-1"
    state = page.locator(".detail .head .chip")
    expect(page.locator(".detail .title").first).to_have_text("cartpole-ppo-1", timeout=_TIMEOUT_MS)
    expect(state).to_have_text("training", timeout=60_000)
    version = page.locator(".tile", has_text="Version").locator(".value")
    first = until(lambda: shown(version), "a version is shown")
    until(lambda: shown(version) > first, "and a newer one")
    assert late_s(page, path) < 2.0
    expect(page.locator(".pace")).to_contain_text(re.compile("too few|too slow|balanced"), timeout=60_000)

    page.get_by_role("button", name="Stop").click()
    expect(state).to_have_text("stopped", timeout=60_000)
    assert holder(path) is None
    assert list((path / "checkpoints").glob("ckpt-*"))
    until(lambda: "stopped; go on with:" in (path / "logs" / "train.log").read_text(), "the run said goodbye")
    kept = last_row(path / "metrics.jsonl")
    assert kept is not None

    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_text("training", timeout=60_000)
    until(lambda: (row := last_row(path / "metrics.jsonl")) and row["learner_epoch"] == 2, "it goes on")
    assert shown(version) >= kept["version"]
    page.get_by_role("button", name="Stop").click()
    expect(state).to_have_text("stopped", timeout=60_000)


def shown(version: object) -> int:
    text = version.inner_text().replace(",", "")  # type: ignore[attr-defined]
    return int(text) if text.isdecimal() else 0


def late_s(page: Page, path: Path) -> float:
    """How long until a row that was just written stands on the page."""
    newest = last_row(path / "metrics.jsonl")
    assert newest is not None
    row = until(lambda: (r := last_row(path / "metrics.jsonl")) and r["version"] > newest["version"] and r, "a new row")
    began_s = time.monotonic()
    version = page.locator(".tile", has_text="Version").locator(".value")
    until(lambda: shown(version) >= row["version"], "the row is shown")
    return time.monotonic() - began_s


def test_a_run_goes_on_when_its_board_ends(tmp_path: Path, chromium: Browser) -> None:
    with board(tmp_path / "runs") as running:
        page = chromium.new_page()
        page.goto(running.url)
        expect(page.locator(".detail")).to_contain_text("No run here yet", timeout=_TIMEOUT_MS)
        page.get_by_role("button", name="New run").click()
        page.get_by_role("textbox", name="Settings").fill(LONG)
        page.get_by_role("button", name="Start").click()
        path = running.runs / "cartpole-ppo-1"
        until(lambda: last_row(path / "metrics.jsonl"), "it learns")
        page.close()
    kept = last_row(path / "metrics.jsonl")
    process = holder(path)
    assert kept is not None
    assert process is not None
    try:
        until(lambda: (row := last_row(path / "metrics.jsonl")) and row["version"] > kept["version"], "it goes on")
    finally:
        process.terminate()
    until(lambda: "stopped; go on with:" in (path / "logs" / "train.log").read_text(), "and answers to its signal")
