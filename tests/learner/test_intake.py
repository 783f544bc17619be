"""The fetching thread: admits, refuses, bounds its queue, de-duplicates, and never dies in silence."""

import time
from functools import partial

import numpy as np
import pytest

from headrace.common.errors import TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits
from headrace.common.transport.memory import Memory
from headrace.common.validation import validate
from headrace.learner.intake import Intake, Marks
from tests.learner.fragments import SCHEMA, fragment

check = partial(validate, schema=SCHEMA, run_id="run")


class Recording(Memory):
    """The real in-process carrier, which also remembers what was rejected."""

    def __init__(self):
        super().__init__(Limits())
        self.rejected = []

    def reject(self, received, reason, detail):
        self.rejected.append((received.trajectory.lease, reason))


@pytest.fixture
def carrier():
    carrier = Recording()
    yield carrier
    carrier.close()


def open_intake(carrier, metrics, queue_bytes=1 << 20, marks=None):
    return Intake(carrier, check, metrics, queue_bytes, marks or Marks())


def wait_until(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def test_bad_fragments_are_counted_kept_and_do_not_take_the_good_ones_with_them(carrier):
    metrics = Metrics("learner")
    intake = open_intake(carrier, metrics)
    bad = fragment(1, seq=1).arrays["reward"].copy()
    bad[0, 0] = np.nan
    for trajectory in (
        fragment(0, seq=0),
        fragment(1, seq=1, reward=bad),
        fragment(2, seq=2, run="another"),
        fragment(3, seq=3, action=np.zeros((4, 2), np.float32)),
        fragment(4, seq=4, reward=np.zeros((3, 2), np.float32)),
        fragment(5, seq=5),
    ):
        carrier.put(trajectory)
    assert [intake.take(5.0).trajectory.lease for _ in range(2)] == [0, 5]
    assert carrier.rejected == [(1, "nan"), (2, "run"), (3, "dtype"), (4, "shape")]
    assert intake.rejected == 4
    assert metrics.value("learner_rejected_total", reason="nan") == 1
    intake.close()


def test_a_fragment_is_admitted_once_whatever_comes_twice(carrier):
    metrics = Metrics("learner")
    intake = open_intake(carrier, metrics)
    for seq in (0, 1, 0, 1, 2):
        carrier.put(fragment(seq, seq=seq))
    carrier.put(fragment(9, seq=0, incarnation=2))  # another life counts from 0 again
    assert [intake.take(5.0).trajectory.lease for _ in range(4)] == [0, 1, 2, 9]
    assert metrics.value("learner_rejected_total", reason="duplicate") == 2
    intake.close()


def test_marks_survive_json_and_forget_only_the_oldest_lives():
    marks = Marks(keep=2)
    for life in (10, 11, 12):
        marks.apply(fragment(0, seq=life, incarnation=life))
    again = Marks.from_json(marks.to_json())
    assert again.is_duplicate(fragment(0, seq=12, incarnation=12))
    assert not again.is_duplicate(fragment(0, seq=13, incarnation=12))
    assert not again.is_duplicate(fragment(0, seq=10, incarnation=10))


def test_the_queue_is_bounded_in_bytes(carrier):
    size = fragment(0).nbytes
    intake = open_intake(carrier, Metrics("learner"), queue_bytes=3 * size)
    for seq in range(10):
        carrier.put(fragment(0, seq=seq))
    wait_until(lambda: carrier.backlog() == 6)  # three queued, one in the thread's hand
    assert intake.backlog() == 9
    assert [intake.take(5.0).trajectory.seq for _ in range(10)] == list(range(10))
    intake.close()


def test_the_thread_dying_surfaces_where_fragments_are_taken(carrier):
    def broken(trajectory):
        raise TransportError("the disk is gone")

    intake = Intake(carrier, broken, Metrics("learner"), 1 << 20, Marks())
    carrier.put(fragment(0))
    with pytest.raises(TransportError, match="disk is gone"):
        intake.take(5.0)
    intake.close()


def test_nothing_to_take_is_none_within_the_deadline(carrier):
    intake = open_intake(carrier, Metrics("learner"))
    began = time.monotonic()
    assert intake.take(0.05) is None
    assert time.monotonic() - began < 1.0
    intake.close()
