"""A lease buys one fragment, of the worker life it was issued to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.common.errors import Rejected
from headrace.common.lease_set import LeaseSet
from headrace.common.types import Trajectory
from headrace.common.weights.base import LedgerState
from headrace.learner.leases import LEAP, SETTLE_S, Leases
from tests.learner.fragments import fragment

EXTREMES = [-(2**63), -1, 2**31, 2**62, 2**63 - 1]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def of(lease: int, epoch: int = 2, actor: int = 0, incarnation: int = 1) -> Trajectory:
    made: Trajectory = fragment(lease, actor=actor, incarnation=incarnation)
    return replace(made, learner_epoch=epoch)


def heard(*out: tuple[int, int, int], next_lease: int = 10, clock: Clock | None = None) -> Leases:
    """A learner of epoch 2 that went on from a checkpoint in which 5 leases had been issued and 0 to 2 were spent."""
    leases = Leases(2, 5, LeaseSet([(0, 3)]), clock or Clock())
    leases.hear(LedgerState(next_lease, 0, 0, out), ticket=1)
    return leases


def test_the_holder_and_nobody_else() -> None:
    leases = heard((7, 3, 33))
    assert leases.judge(of(7, actor=3, incarnation=33), 1)
    for liar in (of(7, actor=4, incarnation=33), of(7, actor=3, incarnation=34)):
        with pytest.raises(Rejected, match="lease 7 is of actor 3") as refused:
            leases.judge(liar, 1)
        assert refused.value.reason == "lease"


def test_a_number_that_its_workers_next_life_has_waits_for_one_answer() -> None:
    leases = heard((7, 3, 33))
    assert not leases.judge(of(7, actor=3, incarnation=34), asked=2)
    leases.hear(LedgerState(10, 0, 0, ((7, 3, 34),)), ticket=2)
    assert leases.judge(of(7, actor=3, incarnation=34), asked=2)
    with pytest.raises(Rejected, match="in another life"):
        leases.judge(of(7, actor=3, incarnation=33), asked=2)


def test_once_and_not_again() -> None:
    leases = heard((7, 0, 1))
    assert leases.judge(of(7), 1)
    leases.spend(7)
    for lease in (0, 7):
        with pytest.raises(Rejected) as refused:
            leases.judge(of(lease), 1)
        assert refused.value.reason == "duplicate"
    leases.hear(LedgerState(10, 0, 0, ((7, 0, 1),)), 2)  # an answer from before it was told
    with pytest.raises(Rejected):
        leases.judge(of(7), 2)


def test_an_early_one_waits_for_one_answer() -> None:
    leases = heard()
    assert not leases.judge(of(11), asked=2)
    leases.hear(LedgerState(12, 0, 0, ((11, 0, 1),)), ticket=1)
    assert leases.judge(of(11), asked=2)
    assert not leases.judge(of(12), asked=2)
    leases.hear(LedgerState(12, 0, 0), ticket=2)
    with pytest.raises(Rejected, match="never issued; the next one is 12"):
        leases.judge(of(12), asked=2)


@pytest.mark.parametrize("lease", EXTREMES)
@pytest.mark.parametrize("epoch", [1, 2])
def test_numbers_nobody_issued_move_nothing(lease: int, epoch: int) -> None:
    leases = heard()
    with pytest.raises(Rejected):
        leases.judge(of(lease, epoch), 1)
    assert (leases.issued, leases.spent.runs) == (10, ((0, 3),))


def test_what_was_given_up_and_never_heard_of_is_refused() -> None:
    with pytest.raises(Rejected, match="not out"):
        heard().judge(of(8), 1)


def test_a_former_epochs_fragments_are_welcome_and_a_later_ones_not() -> None:
    leases = heard((4, 0, 1))
    assert leases.judge(of(3, epoch=1, actor=9), 1)
    assert leases.judge(of(9, epoch=1, actor=9), 1), "issued after the checkpoint"
    with pytest.raises(Rejected):
        leases.judge(of(4, epoch=1, actor=9), 1)
    with pytest.raises(Rejected, match="epoch 3; this is epoch 2"):
        leases.judge(of(3, epoch=3), 1)


def test_so_many_are_remembered_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.learner.leases.MAX_OUT", 3)
    leases = heard(*((number, 0, 1) for number in range(5, 10)))
    assert [leases.judge(of(number), 1) for number in (7, 8, 9)] == [True] * 3
    with pytest.raises(Rejected, match="not out"):
        leases.judge(of(6), 1)


def test_what_a_server_issued_before_it_died_waits_until_its_worker_calls_the_next_one() -> None:
    clock = Clock()
    leases = heard(next_lease=10, clock=clock)
    leases.hear(LedgerState(10 + 2 * LEAP, 0, 0), ticket=2)
    assert not leases.judge(of(11), 2)
    leases.hear(LedgerState(10 + 2 * LEAP, 0, 0, ((11, 0, 1),)), ticket=3)
    assert leases.judge(of(11), 2)
    assert not leases.judge(of(12), 2)
    clock.now_s = SETTLE_S
    with pytest.raises(Rejected):
        leases.judge(of(12), 2)
