"""kill -9 of `headrace train` at any moment, the very first included: nothing of it is left.

HEADRACE_TRAIN_KILLS says how often (default 20); bench/train_kills.py keeps the figures of many.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launch.killed_train import ENDED_S, kill_many, pids, roles, start

KILLS = int(os.environ.get("HEADRACE_TRAIN_KILLS", "20"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: it becomes TMPDIR, and sockets stand below it."""
    with tempfile.TemporaryDirectory(prefix="kills-") as path:
        yield Path(path)
        for pid in pids(path):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


@pytest.mark.timeout(120 + 12 * KILLS)
def test_nothing_is_left_of_a_train_that_is_killed_at_a_random_moment(folder: Path) -> None:
    found = kill_many(folder, KILLS, random.Random(7))
    assert [killed for killed in found if set(killed.late) - {"learner"}] == [], "left after 5 s"
    assert [killed for killed in found if killed.ended_after_s > 60.0] == [], "a learner that does not end"
    assert sum(killed.after_s < 1.0 for killed in found) >= KILLS // 4, "the first second is among them"
    assert max(killed.processes for killed in found) >= 4, "a run in full swing is among them"

    resumable = [run_dir for run_dir in folder.glob("*") if list(run_dir.glob("checkpoints/ckpt-*"))]
    if not resumable:  # on a slow machine none came so far
        last = start(folder, folder / "last")
        wait_until(lambda: list((folder / "last").glob("checkpoints/ckpt-*")))
        last.kill()
        last.wait()
        wait_until(lambda: not roles(folder / "last"))
        resumable = [folder / "last"]
    again = start(folder, resumable[0], "--resume", "--set", "run.total_steps=1")
    assert again.wait(60) == 0, (folder / "out").read_text()[-2000:]
    assert list((folder / "tmp").iterdir()) == [], "sockets and folders after the next start"
    assert not any(roles(run_dir) for run_dir in resumable), f"within {ENDED_S:g} s"
