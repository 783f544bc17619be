"""metrics.jsonl survives a writer that is killed, and tells the run as it stands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.learner.counters import Counters
from headrace.learner.report import Report
from headrace.observe.rows import MetricsLog, Row, Tail, last_row, lineage, read_rows


def row(env_steps: int = 0, time_s: float = 0.0) -> Row:
    return {
        "time_s": time_s or env_steps / 1000,
        "version": env_steps // 100,
        "env_steps": env_steps,
        "total_steps": 10_000,
        "episodes": 3,
        "return_mean": 1.5,
        "length_mean": 20.0,
        "steps_per_s": 1000.0,
        "staleness_mean": 1.0,
        "staleness_max": 1,
        "rejected": {"stale": 0},
        "phases": {"wait": 0.1, "update": 0.9},
        "train": {"loss": 0.5},
    }


def steps(rows: list[Row]) -> list[int]:
    return [r["env_steps"] for r in rows]


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    tail = Tail(tmp_path / "metrics.jsonl")
    assert tail.new_rows() == []
    log.write(row(100))
    log.write(row(200))
    assert tail.new_rows() == [row(100), row(200)]
    assert tail.new_rows() == []
    log.write(row(300))
    assert steps(tail.new_rows()) == [300]
    log.close()


def test_no_file_yet(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert Tail(path).new_rows() == []
    assert last_row(path) is None
    with pytest.raises(UsageError, match="no such file"):
        read_rows(path)


def test_what_json_cannot_say_becomes_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(row(1) | {"return_mean": float("nan"), "train": {"loss": float("inf"), "kl": 0.1}})
    log.close()
    (read,) = read_rows(tmp_path / "metrics.jsonl")
    assert read["return_mean"] is None
    assert read["train"] == {"loss": None, "kl": 0.1}


@given(cut=st.integers(0, 400), before=st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_a_torn_line_is_never_seen_and_never_glued_to_the_next(tmp_path_factory, cut: int, before: int) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    whole = b"".join(json.dumps(row(i + 1)).encode() + b"\n" for i in range(before))
    torn = json.dumps(row(9)).encode()[:cut]
    path.write_bytes(whole + torn)
    tail = Tail(path)
    assert steps(tail.new_rows()) == list(range(1, before + 1))
    log = MetricsLog(path)
    log.write(row(50))
    log.close()
    assert steps(tail.new_rows()) == [50]
    assert tail.skipped == 0
    assert steps(read_rows(path)) == [*range(1, before + 1), 50]


def test_a_writer_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write = "import sys, json; from headrace.observe.rows import MetricsLog; from pathlib import Path\n"
    write += "log = MetricsLog(Path(sys.argv[1])); row = json.loads(sys.argv[2]); print(1, flush=True)\n"
    write += "while 1: log.write(row)"
    seen = 0
    tail = Tail(path)
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", write, str(path), json.dumps(row(1))], stdout=subprocess.PIPE)
        with writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            fresh = 0
            while not fresh:
                fresh = len(tail.new_rows())
            writer.kill()
        seen += fresh + len(tail.new_rows())
    assert tail.skipped == 0
    assert seen == path.read_bytes().count(b"\n")


@pytest.mark.parametrize("spoilt", [{"version": "x"}, {"env_steps": None}, {"phases": 5}, {"return_mean": []}])
def test_a_row_of_other_kinds_is_no_row(tmp_path: Path, spoilt: dict[str, object]) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(row(1))
    log.write(row(2) | spoilt)
    log.close()
    assert Tail(tmp_path / "metrics.jsonl").new_rows() == [row(1)]
    assert last_row(tmp_path / "metrics.jsonl") == row(1)


def test_a_line_that_is_no_row_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\0\0\0\n{"time_s": 1}\n[]\n' + json.dumps(row(5)).encode() + b"\n")
    tail = Tail(path)
    assert steps(tail.new_rows()) == [5]
    assert tail.skipped == 3
    assert last_row(path) == row(5)


def test_a_file_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(1, 4)))
    tail = Tail(path)
    assert len(tail.new_rows()) == 3
    path.write_text(json.dumps(row(7)) + "\n")
    assert steps(tail.new_rows()) == [7]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ([100, 200, 300], [100, 200, 300]),
        ([100, 200, 300, 150, 250], [100, 150, 250]),
        ([100, 200, 100, 200, 300], [100, 200, 300]),
        ([100, 200, 0, 50], [0, 50]),
    ],
)
def test_lineage_drops_what_a_resume_undid(written: list[int], kept: list[int]) -> None:
    assert steps(lineage(row(s) for s in written)) == kept


def life(epoch: int, resumed_at: int, *written: int) -> list[Row]:
    """Rows of one life of the learner."""
    return [Row(**row(s), learner_epoch=epoch, resumed_at_steps=resumed_at) for s in written]


def test_lineage_drops_what_came_between_the_checkpoint_and_the_first_row_after_it() -> None:
    """The learner died at 300, its checkpoint stood at 150, and the first row came at 250."""
    rows = [*life(1, 0, 100, 150, 200, 300), *life(2, 150, 250, 350), *life(3, 250, 260)]
    assert steps(lineage(rows)) == [100, 150, 250, 260]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)), max_size=8))
@settings(deadline=None)
def test_lineage_is_what_any_reader_of_the_file_can_work_out(lives: list[tuple[int, int, int]]) -> None:
    """The rule that the documentation gives, in one expression, against the code."""
    rows, at = life(1, 0, 10, 20, 30, 40), 40
    for epoch, (back, first, on) in enumerate(lives, 2):
        began = max(0, at - 10 * back)
        rows += life(epoch, began, *range(began + 5 * first, at := began + 5 * (first + on), 5))
    counts = [
        r for r in rows
        if not any(o["learner_epoch"] > r["learner_epoch"] and o["resumed_at_steps"] < r["env_steps"] for o in rows)
    ]  # fmt: skip
    assert lineage(rows) == counts


def test_lineage_keeps_a_stall() -> None:
    assert len(lineage([row(100, time_s=1.0), row(100, time_s=2.0), row(100, time_s=3.0)])) == 3


def test_last_row_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(1, 1000)) + '{"torn')
    assert last_row(path) == row(999)


def test_what_the_learner_reports_is_a_row(tmp_path: Path) -> None:
    """A renamed key would make readers skip every row without a word."""
    counters = Counters(env_steps=700)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(Report(Metrics("learner"), counters, 10_000, learner_epoch=3).row())
    log.close()
    (read,) = read_rows(tmp_path / "metrics.jsonl")
    assert read.keys() >= row().keys()
    assert (read["learner_epoch"], read["resumed_at_steps"]) == (3, 700)
