"""The fetching thread: admits, refuses, bounds its queue, knows whose lease it is, and never dies in silence."""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from headrace.algorithms import ppo
from headrace.common.errors import TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, Undecodable
from headrace.common.transport.memory import Memory
from headrace.common.types import Trajectory
from headrace.common.validation import Expected, validate
from headrace.common.weights.base import LedgerState
from headrace.learner.intake import MAX_EARLY, Intake
from headrace.learner.leases import Leases
from tests.common.test_masks import SINGLE
from tests.common.test_masks import fragment as masked
from tests.learner.fragments import SCHEMA, fragment

check = partial(validate, expected=Expected(SCHEMA, "run"))


class Recording(Memory):
    """The real in-process carrier, which also remembers what was rejected."""

    def __init__(self):
        super().__init__(Limits())
        self.rejected = []
        self.undecodable = []

    def take_undecodable(self):
        taken, self.undecodable = self.undecodable, []
        return taken

    def reject(self, received, reason, detail):
        self.rejected.append((received.trajectory.lease, reason))


@pytest.fixture
def carrier():
    carrier = Recording()
    yield carrier
    carrier.close()


class Server:
    """Answers at once, like the in-process one: ``out`` was issued to these worker lives."""

    def __init__(self, out):
        self.out, self.tickets, self.intake = out, 0, None

    def ask(self):
        self.tickets += 1
        self.intake.hear(LedgerState(max(self.out, default=-1) + 1, 0, 0, told(self.out)), self.tickets)
        return self.tickets


def told(out):
    return tuple((lease, actor, life) for lease, (actor, life) in sorted(out.items()))


def open_intake(carrier, metrics, queue_bytes=1 << 20, checks=check, out=None, ask=None, examined=()):
    server = Server({n: (0, 1) for n in range(100)} if out is None else out)
    leases = Leases(1)
    intake = server.intake = Intake(
        carrier, checks, leases, ask or server.ask, metrics, queue_bytes, examined=dict(examined)
    )
    return intake


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
    wait_until(lambda: len(carrier.rejected) == 4)
    assert carrier.rejected == [(1, "nan"), (2, "run"), (3, "dtype"), (4, "shape")]
    assert [(refused.reason, refused.lease) for refused in intake.take_refused()] == [
        ("nan", 1), ("run", None), ("dtype", 3), ("shape", 4)
    ]  # fmt: skip
    assert intake.account().spent == ((0, 2), (3, 6)), "a foreign record has no lease of ours"
    assert metrics.value("learner_rejected_total", reason="nan") == 1
    intake.close()


def test_an_action_that_its_mask_forbids_is_refused_counted_and_kept(carrier):
    schema, metrics = ppo.schema(ppo.Config(), SINGLE), Metrics("learner")
    intake = open_intake(carrier, metrics, checks=partial(validate, expected=Expected(schema, "run")))
    for lease in range(3):
        arrays = masked(SINGLE, schema, seed=lease)
        if lease == 1:
            arrays["obs.action_mask"][2, 0], arrays["action"][2, 0] = [True, True, False, True], 2
        carrier.put(Trajectory("run", 1, 0, 1, lease, 0, lease, "task", schema.hash, 4, 3, arrays))
    assert [intake.take(5).trajectory.lease for _ in range(2)] == [0, 2]
    wait_until(lambda: carrier.rejected)
    assert carrier.rejected == [(1, "mask")]
    assert metrics.value("learner_rejected_total", reason="mask") == 1
    intake.close()


def test_a_fragment_is_admitted_once_whatever_comes_twice(carrier):
    metrics = Metrics("learner")
    intake = open_intake(carrier, metrics, out={0: (0, 1), 1: (0, 1), 2: (0, 1), 9: (0, 2)})
    for lease in (0, 1, 0, 1, 2):
        carrier.put(fragment(lease, seq=lease))
    carrier.put(fragment(9, seq=0, incarnation=2))  # another life counts from 0 again
    assert [intake.take(5.0).trajectory.lease for _ in range(4)] == [0, 1, 2, 9]
    assert metrics.value("learner_rejected_total", reason="duplicate") == 2
    assert [refused.reason for refused in intake.take_refused()] == ["duplicate"] * 2
    intake.close()


def test_somebody_elses_lease_buys_nothing_and_is_not_spent(carrier):
    metrics = Metrics("learner")
    intake = open_intake(carrier, metrics, out={0: (0, 1)})
    carrier.put(fragment(0, actor=5, incarnation=5, reward=np.full((4, 2), np.nan, np.float32)))
    carrier.put(fragment(0, actor=5, incarnation=5))
    carrier.put(fragment(2**62))
    carrier.put(fragment(0))
    assert intake.take(5.0).trajectory.actor_id == 0
    assert metrics.value("learner_rejected_total", reason="lease") == 2
    assert metrics.value("learner_rejected_total", reason="nan") == 1, "what is wrong in itself says more"
    assert [refused.lease for refused in intake.take_refused()] == [None] * 3
    assert (intake.account().spent, intake.account().issued) == (((0, 1),), 1)
    intake.close()


def test_early_ones_wait_for_the_servers_answer_and_there_may_be_only_so_many(carrier):
    tickets = []

    def ask():
        tickets.append(len(tickets) + 1)
        return tickets[-1]

    metrics = Metrics("learner")
    intake = open_intake(carrier, metrics, ask=ask)
    for lease in range(MAX_EARLY + 10):
        carrier.put(fragment(lease, seed=0))
    wait_until(lambda: len(tickets) == MAX_EARLY and carrier.backlog() <= 9)
    assert intake.take(0.05) is None
    assert intake.account().waiting >= MAX_EARLY
    out = {n: (0, 1) for n in range(MAX_EARLY + 10)}
    intake.hear(LedgerState(MAX_EARLY + 10, 0, 0, told(out)), tickets[-1])
    assert [intake.take(5.0).trajectory.lease for _ in range(MAX_EARLY + 10)] == list(range(MAX_EARLY + 10))
    intake.close()


def test_what_a_former_life_refused_is_not_counted_again(carrier):
    class Log(Recording):
        """With offsets."""

        offset = 0

        def get(self, timeout_s):
            received = super().get(timeout_s)
            if received is not None:
                self.offset += 1
                received = replace(received, next_offset=self.offset)
            return received

    log, metrics = Log(), Metrics("learner")
    intake = open_intake(log, metrics, examined={0: 2})
    for lease in range(3):
        log.put(fragment(lease, run="another"))
    wait_until(lambda: log.rejected)
    assert log.rejected == [(2, "run")]
    assert len(intake.take_refused()) == 1
    intake.close()


def test_what_the_carrier_could_not_decode_is_counted_once_over_all_lives(carrier):
    carrier.undecodable = [Undecodable("crc", 0, 7), Undecodable("malformed", 0, 9), Undecodable("size", 1, 1)]
    intake = open_intake(carrier, Metrics("learner"), examined={0: 8})
    wait_until(lambda: intake.examined == {0: 9, 1: 1})
    wait_until(lambda: not carrier.undecodable)
    assert [(refused.reason, refused.lease) for refused in intake.take_refused()] == [
        ("malformed", None), ("size", None)
    ]  # fmt: skip
    assert intake.account().spent == ()
    intake.close()


def test_the_queue_is_bounded_in_bytes(carrier):
    size = fragment(0).nbytes
    intake = open_intake(carrier, Metrics("learner"), queue_bytes=3 * size)
    for seq in range(10):
        carrier.put(fragment(seq, seq=seq, seed=0))
    wait_until(lambda: carrier.backlog() == 6)  # three queued, one in the thread's hand
    assert intake.backlog() == 9
    assert [intake.take(5.0).trajectory.seq for _ in range(10)] == list(range(10))
    intake.close()


def test_the_thread_dying_surfaces_where_fragments_are_taken(carrier):
    def broken(trajectory):
        raise TransportError("the disk is gone")

    intake = open_intake(carrier, Metrics("learner"), checks=broken)
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
