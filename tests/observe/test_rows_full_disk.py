"""metrics.jsonl and TensorBoard on a disk that is full, or gone, now and then: late, whole, never glued, and counted.

The limit on a file's size (setrlimit) is the disk: the kernel writes up to it, short if it must, then refuses.
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import shutil
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from headrace.common import appender
from headrace.observe import endpoints
from headrace.observe.rows import MetricsLog, Tail, read_rows
from headrace.observe.tensorboard import TensorBoardWriter

from .test_rows import row, steps


@contextlib.contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """Inside, no file of this process grows beyond ``size_bytes``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(sizes=st.lists(st.integers(0, 4000), min_size=1, max_size=8), torn=st.integers(0, 60))
@settings(max_examples=80, deadline=None)
def test_rows_of_a_full_disk_come_late_and_whole(tmp_path_factory, sizes: list[int], torn: int) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.write_bytes(json.dumps(row(1)).encode() + b"\n" + json.dumps(row(2)).encode()[:torn])
    log, tail, seen = MetricsLog(path), Tail(path), []
    written = 1
    for size in sizes:
        with disk_of(size):
            for _ in range(3):
                written += 1
                log.write(row(written))
                seen += steps(tail.new_rows())
    log.write(row(written + 1))
    log.close()
    seen += steps(tail.new_rows())
    assert seen == list(range(1, written + 2)), "in order, each once, for a reader beside the writer"
    assert tail.skipped == 0
    assert steps(read_rows(path)) == list(range(1, written + 2))
    assert [json.loads(line)["env_steps"] for line in path.read_text().splitlines()] == list(range(1, written + 2))


def test_a_full_disk_is_said_once_and_what_did_not_fit_into_memory_is_counted(tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(appender, "WAITING_BYTES", 5 * len(json.dumps(row(1))))
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with caplog.at_level(logging.WARNING), disk_of(0):
        for step in range(1, 21):
            log.write(row(step))
    (said,) = caplog.messages
    assert "metrics.jsonl: not written (File too large)" in said
    caplog.clear()
    log.write(row(21))
    log.close()
    kept = steps(read_rows(tmp_path / "metrics.jsonl"))
    assert kept == list(range(kept[0], 22)), "the newest are kept"
    assert log.lost == kept[0] - 1 > 0
    (said,) = caplog.messages
    assert f"{log.lost} lost" in said


def test_a_removed_directory_costs_nothing_once_it_is_back(tmp_path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    log = MetricsLog(run_dir / "metrics.jsonl")
    log.write(row(1))
    shutil.rmtree(run_dir)
    log.write(row(2))
    log.write(row(3))
    run_dir.mkdir()
    log.write(row(4))
    log.close()
    assert steps(read_rows(run_dir / "metrics.jsonl")) == [2, 3, 4]


def test_a_log_that_cannot_be_opened_yet_is_written_later(tmp_path) -> None:
    log = MetricsLog(tmp_path / "later" / "metrics.jsonl")
    log.write(row(1))
    (tmp_path / "later").mkdir()
    log.write(row(2))
    log.close()
    assert steps(read_rows(tmp_path / "later" / "metrics.jsonl")) == [1, 2]


@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_tensorboard_reads_what_a_full_disk_held_up(tmp_path_factory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("board")
    with disk_of(sizes[0]):
        board = TensorBoardWriter(folder)
    for step, size in enumerate(sizes, 1):
        with disk_of(size):
            board.show([row(step)])
    board.show([row(len(sizes) + 1)])
    board.close()
    (file,) = folder.iterdir()
    events = list(EventFileLoader(str(file)).Load())
    assert events[0].file_version == "brain.Event:2"
    assert [e.step for e in events if e.HasField("summary")] == list(range(1, len(sizes) + 2))


def test_tensorboard_cannot_end_a_run(tmp_path) -> None:
    (tmp_path / "tensorboard").write_text("a file where its folder should be")
    board = TensorBoardWriter(tmp_path / "tensorboard")
    board.show([row(1)])
    board.close()


def test_an_endpoint_that_cannot_be_written_is_said_and_ends_nothing(tmp_path, caplog) -> None:
    with disk_of(0):
        said = endpoints.announce(tmp_path, "actor", 1, "http://127.0.0.1:1")
    assert "actor-1.json: not written (File too large)" in caplog.text
    assert list(said.parent.iterdir()) == [], "nothing half written stays"
    endpoints.withdraw(said)
    shutil.rmtree(said.parent)
    said.parent.write_text("a file where its folder should be")
    endpoints.withdraw(endpoints.announce(tmp_path, "actor", 1, "http://127.0.0.1:1"))
