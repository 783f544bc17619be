"""What the board reads from run directories: whole and broken ones, long ones in bounded memory; and what it starts."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from headrace.common.errors import UsageError
from headrace.launch.board import charts
from headrace.launch.board.folder import Folder
from headrace.launch.board.launcher import Launcher
from headrace.launch.board.look import Looker
from headrace.launch.run_dir import claim, holder
from headrace.observe.curve import Curve
from headrace.observe.rows import Row, Tail, lineage

from .boards import until


def row(steps: int, **more: Any) -> Row:
    return {
        "time_s": steps / 1000, "version": steps // 10, "env_steps": steps, "total_steps": 10_000_000, "episodes": 3,
        "return_mean": 1.5, "length_mean": 9.0, "return_std": 0.5, "steps_per_s": 1000.0, "staleness_mean": 0.5,
        "staleness_max": 1, "rejected": {}, "phases": {"wait": 0.25, "update": 0.75}, "train": {"entropy": 0.6},
        "learner_epoch": 1, "resumed_at_steps": 0, **more,
    }  # type: ignore[typeddict-item]  # fmt: skip


def evaluation(version: int, **more: Any) -> str:
    """A line of evaluations.jsonl."""
    whole = {"version": version, "env_steps": 10 * version, "time_s": version / 100, "mean": 5.0, "interval95": 1.5,
             "episodes": 2, "returns": [4.0, 6.0]}  # fmt: skip
    return json.dumps({**whole, **more}) + "\n"


def write(path: Path, rows: list[Row], end: str = "") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + end)
    return path


# --- the folder ----------------------------------------------------------------------------------------------------


def test_runs_are_found_one_level_further_down_as_well_and_links_are_not_followed(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("a-1", "seeds-1/seed-0", "seeds-1/seed-1", "a-1/inner", "one/two/three"):
        write(runs / name, [row(10)])
    write(tmp_path / "outside", [row(10)])
    (runs / "led").symlink_to(tmp_path / "outside")
    (runs / "notes").mkdir()
    assert sorted(Folder(runs).names()[0]) == ["a-1", "seeds-1/seed-0", "seeds-1/seed-1"]
    assert Folder(tmp_path / "nothing here").names() == ([], 0)


@pytest.mark.parametrize(
    "name", ["../outside", "led", "/etc", "", ".", "a-1/..", "a-1/../a-1", "a-1\0", "none", "notes"]
)
def test_a_name_that_leads_elsewhere_is_no_run(tmp_path: Path, name: str) -> None:
    runs = tmp_path / "runs"
    write(runs / "a-1", [row(10)])
    write(tmp_path / "outside", [row(10)])
    (runs / "led").symlink_to(tmp_path / "outside")
    (runs / "notes").mkdir()
    with pytest.raises(UsageError, match="is no run in"):
        Folder(runs).run(name)
    launcher = Launcher(Folder(runs))
    for action in (launcher.stop, launcher.resume):
        with pytest.raises(UsageError, match="is no run in"):
            action(name)


# --- looking -------------------------------------------------------------------------------------------------------


def test_a_run_that_ended_because_it_was_solved_is_finished(tmp_path: Path) -> None:
    for name, ended_by in (("solved", "solved"), ("stopped", None)):
        path = write(tmp_path / name, [row(10)])
        (path / "result.json").write_text(json.dumps({"env_steps": 10, "evaluation": None, "ended_by": ended_by}))
        os.utime(path / "metrics.jsonl", (0, 0))
    assert {g.name: g.state for g in Looker(Folder(tmp_path)).glance()[0]} == {
        "solved": "finished",
        "stopped": "stopped",
    }


def test_a_run_that_is_broken_is_shown_all_the_same(tmp_path: Path) -> None:
    half = write(tmp_path / "half", [row(10), row(20)], end='{"time_s": 3, "vers')
    (half / "evaluations.jsonl").write_text(evaluation(1) + '[1]\n{"mean": null}\n' + evaluation(2)[:30])
    (half / "result.json").write_text("{")
    (half / "config.toml").write_text("[task\n")
    (half / "endpoints").mkdir()
    (half / "endpoints" / "learner-0.json").write_text("no")
    junk = write(tmp_path / "junk", [], end="\0\xff\n[]\n{}\n" + "x" * (3 << 20) + "\n" + json.dumps(row(30)) + "\n")
    (junk / "lock").write_text("99999999999999999999")
    write(tmp_path / "empty", [])
    (tmp_path / "odd" / "metrics.jsonl").mkdir(parents=True)
    (tmp_path / "odd" / "config.toml").mkdir()
    for path in (half, junk):
        os.utime(path / "metrics.jsonl", (0, 0))
    looker = Looker(Folder(tmp_path))
    glances, more = looker.glance()
    assert {g.name: g.state for g in glances} == {
        "half": "stopped",
        "junk": "stopped",
        "empty": "empty",
        "odd": "empty",
    }
    assert more == 0
    looks = {look.glance.name: look for look in looker.look(["half", "junk", "empty", "odd", "gone"])}
    assert looks.keys() == {"half", "junk", "empty", "odd"}
    assert [r["env_steps"] for r in looks["half"].rows] == [10, 20]
    assert [said["mean"] for said in looks["half"].evaluations] == [5]
    assert looks["empty"].rows == []
    for _ in range(9):  # what is no row takes a look of its own
        looks = {look.glance.name: look for look in looker.look(["junk"])}
    assert [r["env_steps"] for r in looks["junk"].rows] == [30]


def test_what_is_new_is_seen_at_the_next_look_and_what_was_undone_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [row(10), row(20)])
    looker = Looker(Folder(tmp_path))
    assert [r["env_steps"] for r in looker.look(["a"])[0].rows] == [10, 20]
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(15, learner_epoch=2, resumed_at_steps=12)) + "\n")
    assert [r["env_steps"] for r in looker.look(["a"])[0].rows] == [10, 15]


def test_a_run_of_weeks_is_a_thousand_rows_in_memory() -> None:
    curve = Curve()
    tracemalloc.start()
    for number in range(100_000):
        curve.add([row(number)])
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    steps = [r["env_steps"] for r in curve.rows()]
    assert 500 <= len(steps) <= 1001
    assert (steps[0], steps[-1], steps == sorted(steps)) == (0, 99_999, True)
    assert used < 4 << 20
    gaps = {b - a for a, b in itertools.pairwise(steps[:-1])}
    assert len(gaps) == 1, "evenly"


def test_a_short_curve_is_the_lineage() -> None:
    rows = [row(10), row(20), row(30), row(12, learner_epoch=2, resumed_at_steps=11), row(24, learner_epoch=2)]
    curve = Curve()
    curve.add(rows)
    assert curve.rows() == lineage(rows)


def test_a_file_is_read_in_pieces_that_lose_nothing(tmp_path: Path) -> None:
    rows = [row(10 * k) for k in range(100)]
    path = write(tmp_path / "a", rows) / "metrics.jsonl"
    tail, found = Tail(path, at_most_bytes=1000), list[Row]()
    while new := tail.new_rows():
        assert len(new) < 5
        found += new
    assert (found, tail.skipped) == (rows, 0)


def test_curves_have_every_evaluation_with_its_interval_and_nothing_that_is_no_figure(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [row(10), row(20, return_mean=None), row(30)])
    (path / "evaluations.jsonl").write_text(
        evaluation(1, time_s=None)
        + evaluation(2, env_steps=None, time_s=None, mean=9.0)
        + evaluation(3, mean=7.0, interval95=None)
        + evaluation(4, env_steps="no", time_s="never")
        + evaluation(5, mean="high")
    )
    looks = Looker(Folder(tmp_path)).look(["a"])

    def drawn(over: charts.Over) -> dict[str, Any]:
        return {s["name"]: s for s in charts.returns(looks, {"a": "#123456"}, over)["series"] if "name" in s}

    assert drawn("steps")["a"]["data"] == [[10, 1.5], [30, 1.5]]
    greedy = drawn("steps")["a, greedy"]
    assert greedy["data"] == [[10, 5.0], [30, 7.0]]
    assert greedy["markLine"]["data"] == [[{"coord": [10, 3.5]}, {"coord": [10, 6.5]}]]
    assert drawn("time")["a, greedy"]["data"] == [[0.03, 7.0]]
    speed = charts.figure(looks, {"a": "#123456"}, "steps", lambda r: r["steps_per_s"])["series"]
    assert [point[1] for point in speed[0]["data"]] == [1000.0] * 3


# --- whose run it is -----------------------------------------------------------------------------------------------


def test_a_pid_that_became_somebody_elses_is_not_the_runs(tmp_path: Path) -> None:
    """The lock names a process that lives, and has nothing to do with it."""
    path = write(tmp_path / "a", [row(10)])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        try:
            (path / "lock").write_text(f"{other.pid}\n")
            assert holder(path) is None
            with pytest.raises(UsageError, match="no process of this machine"):
                Launcher(Folder(tmp_path)).stop("a")
            assert other.poll() is None
        finally:
            other.kill()


def test_the_process_that_holds_a_run_is_found(tmp_path: Path) -> None:
    held = claim(tmp_path / "a")
    found = holder(tmp_path / "a")
    assert found is not None
    assert found.pid == os.getpid()
    held.close()
    assert holder(tmp_path / "a") is None


# --- starting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "settings", "says"),
    [
        ("/etc/passwd", [], "is no preset"),
        ("../cartpole-ppo", [], "is no preset"),
        ("cartpole-ppo; touch x", [], "is no preset"),
        ("cartpole-ppo", ["run.sede=1"], "unknown key run.sede"),
        ("cartpole-ppo", ["--resume"], "write section.key=value"),
    ],
)
def test_what_is_no_run_is_refused_before_anything_is_made(
    tmp_path: Path, preset: str, settings: list[str], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        Launcher(Folder(tmp_path)).start(preset, settings)
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_only_the_run_itself_refuses_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    launcher = Launcher(Folder(tmp_path))
    name = launcher.start("cartpole-ppo", ["task.env=NoSuchThing-v0"])
    assert launcher.runs(name)
    (line,) = until(launcher.failures, "it is refused")
    assert line.startswith(f"{name}: headrace train: ")
    assert "NoSuchThing" in line
    assert (list(tmp_path.iterdir()), launcher.runs(name)) == ([], False)


def test_a_start_may_be_stopped_before_it_has_begun(tmp_path: Path) -> None:
    launcher = Launcher(Folder(tmp_path))
    name = launcher.start("cartpole-ppo", [])
    launcher.stop(name)
    until(lambda: not launcher.runs(name), "it ends")
    assert (launcher.failures(), list(tmp_path.iterdir())) == ([], [])
