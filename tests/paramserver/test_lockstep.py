"""The ledger where leases go to the workers in turn."""

from __future__ import annotations

import pytest

from headrace.common.errors import UsageError
from headrace.common.weights.base import LedgerState, Progress
from headrace.paramserver.lockstep import LockstepLedger
from headrace.paramserver.outstanding import WaitedFor

from .test_ledger import take


def lockstep(workers: int, admit_until: int) -> LockstepLedger:
    made = LockstepLedger(workers, delivery_s=10.0)
    made.rebuild(Progress(admit_until, complete=True), 0.0)
    return made


def test_every_worker_has_its_own_numbers() -> None:
    made = lockstep(3, 6)
    assert made.begin(2, 1, 0.0) == 2
    assert made.begin(0, 1, 0.0) == 0
    assert take(made, 1, 9) == [1, 4]
    assert made.begin(2, 1, 0.0, received=[2]) == 5
    assert made.begin(2, 1, 0.0, received=[2, 5]) is None
    made.admit(Progress(7), 0.0)
    assert made.begin(2, 1, 0.0, received=[2, 5]) is None
    assert made.begin(0, 1, 0.0, received=[0]) == 3
    assert made.begin(0, 1, 0.0, received=[0, 3]) == 6


def test_a_new_life_has_the_number_that_did_not_come() -> None:
    made = lockstep(2, 9)
    assert take(made, 0, 2) == [0, 2]
    made.admit(Progress(9, accepted=1, spent=((0, 1),), complete=True), 0.0)
    assert made.begin(0, 2, 1000.0) == 2, "it never goes to anybody else"
    assert made.begin(0, 2, 1000.0, received=[2]) == 4


def test_a_new_life_does_not_repeat_what_came() -> None:
    made = lockstep(2, 9)
    assert take(made, 0, 1) == [0]
    made.admit(Progress(9, accepted=1, spent=((0, 1),)), 0.0)  # it was put before its worker was killed
    assert made.begin(0, 2, 0.0) == 2


def test_a_new_learner_reads_what_waits_before_anything_is_collected_again() -> None:
    made = lockstep(2, 6)
    assert take(made, 0, 2) == [0, 2]
    assert take(made, 1, 2) == [1, 3]
    made.rebuild(Progress(2, accepted=2, spent=((0, 2),)), 0.0, epoch=2)  # 2 and 3 wait in the log
    assert [made.begin(s, 1, 0.0, received=[s, s + 2]) for s in (0, 1)] == [None, None]
    made.admit(Progress(6, accepted=4, spent=((0, 4),), complete=True), 0.0)
    assert [made.begin(s, 1, 0.0, received=[s, s + 2]) for s in (0, 1)] == [4, 5]


def test_other_workers_are_refused() -> None:
    for actor_id in (-1, 2, 2**62):
        with pytest.raises(UsageError, match="workers 0 to 1"):
            lockstep(2, 9).begin(actor_id, 1, 0.0)


@pytest.mark.parametrize(
    ("spent", "expected"), [(((0, 6),), [6, 7]), (((0, 4),), [4, 5]), (((0, 3),), [4, 3]), (((0, 3), (4, 5)), [6, 3])]
)
def test_a_new_learner_has_collected_again_what_it_does_not_have(
    spent: tuple[tuple[int, int], ...], expected: list[int]
) -> None:
    made = lockstep(2, 6)
    assert take(made, 0, 4) == [0, 2, 4]
    assert take(made, 1, 4) == [1, 3, 5]
    made.rebuild(Progress(8, accepted=4, spent=spent), 0.0)
    assert [made.begin(s, 1, 0.0, received=[s, s + 2, s + 4]) for s in (0, 1)] == expected


def test_after_a_server_restart_what_workers_say_they_put_is_on_its_way() -> None:
    fresh = LockstepLedger(2, delivery_s=10.0)
    fresh.rebuild(Progress(8, accepted=2, spent=((0, 2),), complete=True), 0.0, LedgerState(6, 6, 8))
    assert fresh.begin(0, 1, 0.0, received=[2, 4]) == 6
    assert fresh.begin(1, 99, 0.0) == 3, "a new life cannot know what the former put; the learner drops what it has"
    for now_s in (10.0, 11.0):
        fresh.admit(Progress(8, accepted=2, spent=((0, 2),), complete=True), now_s)
    assert fresh.begin(0, 1, 10.0, received=[2, 4, 6]) == 2, "it never came"


def test_lies_concern_the_liars_own_numbers_alone() -> None:
    fresh = LockstepLedger(2, delivery_s=10.0)
    fresh.rebuild(Progress(8, accepted=2, spent=((0, 2),), complete=True), 0.0, LedgerState(6, 6, 8))
    assert fresh.begin(0, 1, 0.0, received=[3, 5, -2, 2**62]) == 2
    assert fresh.begin(1, 1, 0.0) == 3


def test_who_joins_gets_a_free_number_or_waits() -> None:
    made = lockstep(3, 9)
    made.begin(1, 1, 0.0)
    assert made.join(2, 9, 0.0, "") == [0, 2]
    assert made.join(1, 10, 0.0, "") == []
    assert made.join(1, 10, 4.0, "") == [0]


def test_who_does_not_ask_is_waited_for_like_who_does_not_deliver() -> None:
    made = LockstepLedger(2)
    made.admit(Progress(2), 5.0)
    assert made.waited_for() == WaitedFor(0, 5.0, 5.0), "it never came"
    assert made.begin(0, 1, 6.0) == 0
    assert made.waited_for() == WaitedFor(1, 5.0, 5.0)
    assert made.begin(1, 1, 7.0) == 1
    assert made.waited_for() == WaitedFor(0, 6.0, 6.0), "it has had its lease for longest"
    made.beat(1, 1, 8.0)
    made.admit(Progress(2, accepted=1, spent=((1, 2),)), 8.5)
    assert made.waited_for() == WaitedFor(0, 6.0, 6.0)
    made.admit(Progress(4, accepted=2, spent=((0, 2),)), 9.0)
    assert made.begin(0, 1, 9.5, received=[0]) == 2
    assert made.waited_for() == WaitedFor(1, 9.0, 8.0), "it has delivered, and does not ask again"


def test_no_lease_expires_by_time_alone() -> None:
    made = lockstep(2, 9)
    assert made.begin(0, 1, 0.0) == 0
    made.expire(1000.0)
    assert (0 in made.out.held, made.expired_total) == (True, 0)
    assert made.waited_for() == WaitedFor(0, 0.0, 0.0), "it is named for as long as it takes"


def test_numbers_whose_fragments_were_refused_are_followed_by_as_many_others() -> None:
    """Version 2, two fragments to a version: 4 were trained on, and 70 refused."""
    made = lockstep(2, 6)
    made.rebuild(Progress(6, accepted=4, spent=((0, 74),), complete=True), 0.0)
    assert [made.begin(worker, 1, 100.0) for worker in (0, 1)] == [74, 75]
    assert [made.begin(worker, 1, 100.0, received=[74 + worker]) for worker in (0, 1)] == [None, None]
    assert made.waited_for() is None
    made.admit(Progress(8, accepted=5, spent=((0, 76),), complete=True), 100.0)  # and one more was refused
    assert [made.begin(worker, 1, 100.0, received=[74 + worker]) for worker in (0, 1)] == [76, 77]
    assert made.begin(0, 1, 100.0, received=[76]) == 78
