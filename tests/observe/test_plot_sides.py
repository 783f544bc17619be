"""seeds.png and compare.png: curves of several runs, with a band, over steps and over time."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from headrace.observe.evaluations import read_evaluations
from headrace.observe.plot import Evaluation, Side, plot_returns, plot_sides
from headrace.observe.rows import Row

from .test_shows import row


def run(slope: float, until: int = 10_000) -> list[Row]:
    return [row(0, None), *(row(steps, slope * steps) for steps in range(100, until, 100))]


def picture(path: Path, sides: list[Side], **options: object) -> np.ndarray:
    plot_sides(sides, path, title="X-v0", **options)  # type: ignore[arg-type]
    assert [p.name for p in path.parent.iterdir()] == [path.name], "replaced whole, nothing left beside it"
    return matplotlib.image.imread(path)[..., :3]


def near(image: np.ndarray, color: str, apart: float = 0.02) -> int:
    """Pixels of a colour."""
    wanted = np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return int((np.abs(image - wanted).max(axis=-1) < apart).sum())


def test_several_runs_have_a_band_and_one_has_none(tmp_path: Path) -> None:
    paler = "#d3e0ee"  # the first side's blue at a fifth
    apart = picture(tmp_path / "a.png", [Side("a", [run(1.0), run(2.0), run(3.0)])])
    (tmp_path / "a.png").unlink()
    alone = picture(tmp_path / "b.png", [Side("a", [run(2.0)])])
    assert near(apart, paler) > 5000
    assert near(alone, paler) < 500


def test_runs_of_one_row_are_a_dot(tmp_path: Path) -> None:
    dot, empty = ([row(100, 50.0)], [row(100, 50.0)]), ([row(100, None)], [row(100, None)])
    shown = picture(tmp_path / "a.png", [Side("a", dot)])
    assert near(shown, "#2563a8") > near(picture(tmp_path / "a.png", [Side("a", empty)]), "#2563a8") + 30
    plot_returns(dot[0], tmp_path / "a.png", title="X-v0")
    assert near(matplotlib.image.imread(tmp_path / "a.png")[..., :3], "#2563a8") > 150, "more than the legend's line"


def test_each_side_has_a_colour_and_each_axis_a_panel(tmp_path: Path) -> None:
    sides = [Side(f"side {k}", [run(k), run(k + 0.1)]) for k in range(1, 4)]
    one = picture(tmp_path / "a.png", sides, threshold=100.0)
    two = picture(tmp_path / "a.png", sides, over=("env_steps", "time_s"))
    assert two.shape[1] > 1.5 * one.shape[1]
    for color in ("#2563a8", "#d95f02", "#1b9e77"):
        left, right = np.array_split(two, 2, axis=1)
        assert near(left, color) > 100
        assert near(right, color) > 100


def test_evaluations_are_drawn_where_every_run_has_some(tmp_path: Path) -> None:
    path, runs = tmp_path / "a.png", [run(1.0), run(1.1)]
    found = [{"env_steps": steps, "time_s": None, "mean": steps * 2.0} for steps in range(1000, 9000, 1000)]
    without = picture(path, [Side("a", runs)])
    assert (picture(path, [Side("a", runs, [found, []])]) == without).all(), "nor does the legend name them"
    some = near(picture(path, [Side("a", runs, [found, found])]), "#2563a8")
    assert some > near(without, "#2563a8") + 200
    over_time = picture(path, [Side("a", runs, [found, found])], over=("time_s",))
    assert near(over_time, "#2563a8") == pytest.approx(near(without, "#2563a8"), rel=0.2), "when is not known"


def test_nothing_to_draw_is_a_picture_all_the_same(tmp_path: Path) -> None:
    assert picture(tmp_path / "a.png", [Side("a", [[], [row(0, None)]]), Side("b", [])]).size
    mark = Evaluation(10_000, 5.0, 4.0, 6.0)
    assert picture(tmp_path / "a.png", [Side("a", [run(1.0), []], evaluation=mark)]).size


def test_evaluations_are_read_without_what_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    assert read_evaluations(path) == []
    one = {"version": 3, "env_steps": None, "time_s": None, "mean": 1.5, "interval95": 0.5, "episodes": 1,
           "returns": [1.5]}  # fmt: skip
    path.write_text(json.dumps(one) + '\n{"version": 4, "me')
    assert read_evaluations(path) == [one]
