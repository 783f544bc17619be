"""The ledger and fragments that are lost on the way: when a lease that was put is given up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.common.weights.base import Progress

from .test_ledger import ledger, take


def test_fragments_lost_on_the_way_are_given_up_when_nothing_waits() -> None:
    made = ledger(4)
    assert take(made, 0, 5) == [0, 1, 2, 3]  # all put; 2 and 3 die with the actor before the carrier has them
    starving = Progress(4, accepted=2, spent=((0, 2),), complete=True)
    made.admit(starving, 9.9)
    made.expire(100.0)
    assert made.begin(0, 2, 9.9) is None, "nobody says that it did not come since"
    made.admit(starving, 10.0)
    assert made.begin(0, 2, 10.0) is None, "said once, by a learner that may just have stood still"
    made.admit(replace(starving, backlog=1), 10.5)
    made.admit(starving, 11.0)
    assert made.begin(0, 2, 11.0) is None, "said once again"
    made.admit(starving, 12.0)
    assert [made.begin(a, 2, 12.0) for a in range(3)] == [4, 5, None]


def test_what_a_learner_that_stood_still_says_first_proves_nothing() -> None:
    made = ledger(4)
    nothing_waits = Progress(4, complete=True)
    made.admit(nothing_waits, 0.9)
    assert take(made, 0, 3, now_s=1.0) == [0, 1, 2]  # two are put, one is in the making
    made.admit(nothing_waits, 60.0)  # said before its process was stopped, heard after
    assert made.begun == 3
    made.admit(Progress(4, backlog=2, complete=True), 60.1)
    made.admit(Progress(4, accepted=2, spent=((0, 2),), complete=True), 60.2)
    assert made.begun == 3


@pytest.mark.parametrize("progress", [Progress(2), Progress(2, backlog=1, complete=True)])
def test_while_something_waits_nothing_is_missed(progress: Progress) -> None:
    made = ledger(2)
    take(made, 0, 3)
    made.admit(progress, 1000.0)
    assert made.begin(1, 1, 1000.0) is None
