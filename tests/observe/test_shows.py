"""What is drawn from rows: TensorBoard events, the live table and plain lines, the learning curve."""

import io
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from headrace.observe.plot import Evaluation, plot_returns
from headrace.observe.rows import Row
from headrace.observe.table import BARS, History, Lines, Notes, Table, eta, open_display
from headrace.observe.tensorboard import TensorBoardWriter

from .test_rows_full_disk import disk_of


def row(env_steps: int, ret: float | None = 1.5, **changed: object) -> Row:
    made: Row = {
        "time_s": env_steps / 1000,
        "version": env_steps // 100,
        "env_steps": env_steps,
        "total_steps": 10_000,
        "episodes": 3,
        "return_mean": ret,
        "length_mean": None,
        "steps_per_s": 1000.0,
        "staleness_mean": 1.0,
        "staleness_max": 2,
        "rejected": {"stale": 0},
        "phases": {"wait": 0.1, "update": 0.9},
        "train": {"loss": 0.5, "kl": None},
    }
    return made | changed  # type: ignore[return-value]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


# --- TensorBoard ---------------------------------------------------------------------------------------------------


def events(folder: Path) -> EventAccumulator:
    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def test_board_is_read_back_by_tensorboard(tmp_path: Path) -> None:
    board = TensorBoardWriter(tmp_path / "tensorboard", clock=lambda: 1_700_000_000.0)
    board.show([row(0, None), row(100, -20.0)])
    board.show([row(200, 35.5)])
    board.close()
    read = events(tmp_path / "tensorboard")
    assert [(e.step, e.value) for e in read.Scalars("episodes/return_mean")] == [(100, -20.0), (200, 35.5)]
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == [(0, 0.5), (100, 0.5), (200, 0.5)]
    assert read.Scalars("phases/update")[0].value == pytest.approx(0.9)
    assert {"speed/steps_per_s", "speed/version", "staleness/max", "rejected/stale"} <= set(read.Tags()["scalars"])
    assert not {"train/kl", "episodes/length_mean"} & set(read.Tags()["scalars"])


def test_board_of_a_resumed_run_takes_back_what_was_undone(tmp_path: Path) -> None:
    now_s = iter(range(1_700_000_000, 1_700_001_000))
    for steps in ([100, 200, 300], [150, 250]):
        board = TensorBoardWriter(tmp_path, clock=lambda: float(next(now_s)))
        board.show([row(s) for s in steps])
        board.close()
    assert [e.step for e in events(tmp_path).Scalars("speed/version")] == [100, 150, 250]


def test_board_takes_back_what_came_before_the_first_row_after_a_resume(tmp_path: Path) -> None:
    """The checkpoint stood at 150; the row there still counts, the one at 200 does not."""
    now_s = iter(range(1_700_000_000, 1_700_001_000))
    for resumed_at, steps in ((0, [100, 150, 200, 300]), (150, [250])):
        board = TensorBoardWriter(tmp_path, clock=lambda: float(next(now_s)))
        board.show([Row(**row(s), resumed_at_steps=resumed_at) for s in steps])
        board.close()
    assert [e.step for e in events(tmp_path).Scalars("speed/version")] == [100, 150, 250]


def test_board_shows_what_replay_and_evaluation_are_like_and_what_the_run_was_started_with(tmp_path: Path) -> None:
    board = TensorBoardWriter(tmp_path)
    board.hyper_parameters({"run.seed": 3, "task.env": "CartPole-v1", "algorithm.hidden": [64, 64]}, "a-run")
    board.show([Row(**row(100), return_std=4.5, acting={"epsilon": 0.5}, replay_fill=0.25)])
    found = {"version": 1, "mean": 20.5, "interval95": 1.5, "episodes": 20, "returns": []}
    board.evaluated([{**found, "env_steps": 60}, {**found, "env_steps": None}])
    board.close()
    read = events(tmp_path)
    shown = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert shown["episodes/return_std"] == [(100, 4.5)]
    assert shown["acting/epsilon"] == [(100, 0.5)]
    assert shown["replay/fill"] == [(100, 0.25)]
    assert shown["evaluation/return_mean"] == [(60, 20.5)]
    assert shown["evaluation/interval95"] == [(60, 1.5)]
    told = HParamsPluginData.FromString(read.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    values = told.session_start_info.hparams
    assert values["run.seed"].number_value == 3
    assert values["algorithm.hidden"].string_value == "[64, 64]"


def test_board_needs_neither_tensorflow_nor_torch(tmp_path: Path) -> None:
    code = "import sys, pathlib; from headrace.observe.tensorboard import TensorBoardWriter as Writer\n"
    code += "board = Writer(pathlib.Path(sys.argv[1]))\nboard.hyper_parameters({'a': 1}, 'x')\nboard.close()\n"
    code += "print({m.split('.')[0] for m in sys.modules} & {'torch', 'tensorflow'})"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- table and lines -----------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream, clock = Terminal(), Clock()
    display = open_display("a-run", stream, clock)
    assert isinstance(display, Table)
    display.show(
        [row(1000, -3.0), row(5000, 7.0, rejected={"stale": 4})], Notes("learner too slow: busy", {"actor": 2})
    )
    display.close()
    display.close()
    shown = stream.getvalue()
    for text in ("a-run", "5,000 / 10,000", "0:05 left", "7.0", "1,000 steps/s", "version 50", "staleness 1.0 (max 2)"):
        assert text in shown
    assert "greedy" not in shown
    for text in ("wait 10%", "actor started again 2x, 4 rejected: stale", "learner too slow: busy"):
        assert text in shown
    assert "\x1b[36m" in shown or "\x1b[1;36m" in shown


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"mean": 211.44, "interval95": 12.0, "version": 7, "env_steps": 14_336}, "211.4 ± 12.0 at 14,336 steps"),
        ({"mean": 9.0, "interval95": None, "version": 7}, "9.0 at version 7"),
    ],
)
@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_the_newest_evaluation_is_shown(
    monkeypatch: pytest.MonkeyPatch, term: str, found: dict[str, float], text: str
) -> None:
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    display = open_display("a-run", stream, Clock())
    display.show([row(1000)], Notes(evaluation=found))
    display.close()
    assert "greedy" in stream.getvalue()
    assert text in stream.getvalue()


def test_no_color_takes_the_colours_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    display = open_display("a-run", stream, Clock())
    display.show([row(1000), row(2000, 2.0)], Notes("", {"actor": 1}))
    display.close()
    assert "36m" not in stream.getvalue()
    assert "33m" not in stream.getvalue()


def test_the_table_is_drawn_at_most_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Terminal(), Clock()
    display = open_display("a-run", stream, clock)
    begun = stream.getvalue().count("a-run")
    for i in range(100):
        clock.now_s = i * 0.1
        display.show([row(i)], Notes())
    assert 18 <= stream.getvalue().count("a-run") - begun <= 20
    display.close()


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_elsewhere_it_is_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    stream, clock = (Terminal() if term == "dumb" else io.StringIO()), Clock()
    display = open_display("a-run", stream, clock)
    assert isinstance(display, Lines)
    for i in range(12):
        clock.now_s = float(i)
        messages = ("actor 1 started again",) if i == 7 else ()
        display.show([row(i * 1000)], Notes("learner too slow: busy 96%; try less", messages=messages))
    display.close()
    display.close()
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "5", "actor", "10", "11"]
    assert "11,000/10,000 steps  done  return 1.5  1,000 steps/s  version 110" in lines[-1]
    assert lines[-1].endswith("learner waits 10%  learner too slow: busy 96%")
    assert "\x1b" not in stream.getvalue()


def test_lines_on_a_full_disk_come_once_there_is_room(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        lines = Lines(log, clock=lambda: 0.0)
        with disk_of(8):
            lines.show([], Notes(messages=("actor 1 started again",)))
            lines.show([], Notes(messages=("actor 2 started again",)))
        lines.show([], Notes(messages=("actor 3 started again",)))
    assert (tmp_path / "log").read_text() == "".join(f"actor {n} started again\n" for n in (1, 2, 3))


def test_lines_that_nobody_reads_any_more_are_not_gone_on_with() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError), os.fdopen(writer, "w") as pipe:
        Lines(pipe, clock=lambda: 0.0).show([], Notes(messages=("actor 1 started again",)))


def test_lines_do_not_import_rich() -> None:
    code = "import sys; from headrace.observe.table import open_display\n"
    code += "open_display('x', sys.stderr).close(); print('rich' in sys.modules)"
    env = os.environ | {"TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout == "False\n"


def test_history_keeps_its_width_and_its_ends() -> None:
    history = History(40)
    assert history.line() == ""
    for step in range(0, 1_000_000, 1000):
        history.add(step, step)
        assert len(history.line()) <= 40
    line = history.line()
    assert len(line) >= 20
    assert line[0] == BARS[0]
    assert line[-1] == BARS[-1]
    assert list(line) == sorted(line)
    history.add(500_000, 3.0)
    assert len(history.line()) == len(line) // 2 + 1


@pytest.mark.parametrize(
    ("steps", "speed", "text"),
    [(10_000, 0, "done"), (0, 0, "no steps now"), (0, 100, "1:40 left"), (0, 1, "2:46:40 left")],
)
def test_eta(steps: int, speed: float, text: str) -> None:
    assert eta(row(steps, steps_per_s=speed)) == text


# --- the curve -----------------------------------------------------------------------------------------------------

BLUE, ORANGE = (0x25, 0x63, 0xA8), (0xD9, 0x5F, 0x02)


def pixels(path: Path, color: tuple[int, int, int]) -> int:
    image = matplotlib.image.imread(path)[..., :3]
    return int((np.abs(image * 255 - color) < 2).all(-1).sum())


@pytest.mark.parametrize("std", [{}, {"return_std": 30.0}])
def test_plot(tmp_path: Path, std: dict[str, float]) -> None:
    rows = [row(0, None), *(row(s, s / 50 - 100, **std) for s in range(100, 10_001, 100))]
    path = tmp_path / "returns.png"
    plot_returns(rows, path, title="LunarLander-v3, PPO", threshold=200)
    assert pixels(path, BLUE) > 300
    assert pixels(path, ORANGE) == 0
    plot_returns(rows, path, title="x", evaluations=[Evaluation(5000, 10, -5, 30), Evaluation(10_000, 90, 80, 99)])
    assert pixels(path, ORANGE) > 50
    assert matplotlib.image.imread(path).shape == (540, 960, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["returns.png"]


@pytest.mark.parametrize("rows", [[], [row(0, None)], [row(100, 1.0)]], ids=["none", "no episode", "one"])
def test_plot_of_a_run_that_hardly_began(tmp_path: Path, rows: list[Row]) -> None:
    plot_returns(rows, tmp_path / "returns.png", title="x")
    assert matplotlib.image.imread(tmp_path / "returns.png").shape == (540, 960, 4)
