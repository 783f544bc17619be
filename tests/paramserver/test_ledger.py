"""The ledger by examples; test_ledger_model.py holds it to a slow model."""

from __future__ import annotations

import pytest

from headrace.common.errors import Fenced, UsageError
from headrace.common.weights.base import LedgerState, Progress
from headrace.paramserver.ledger import Ledger


def ledger(admit_until: int, **options: float) -> Ledger:
    made = Ledger(ttl_s=10.0, **options)  # type: ignore[arg-type]
    made.rebuild(Progress(admit_until), 0.0)
    return made


def succeeded(known: LedgerState, progress: Progress) -> Ledger:
    """The ledger of a server started anew at 100 s; the learner knows its predecessor as ``known``."""
    made = Ledger(ttl_s=10.0, settle_s=5.0)
    made.rebuild(progress, 100.0, known)
    return made


def take(made: Ledger, actor: int, n: int, now_s: float = 0.0, incarnation: int = 1) -> list[int]:
    """Ask, put, ask again: up to ``n`` leases for one actor that delivers each."""
    got: list[int] = []
    while len(got) < n and (lease := made.begin(actor, incarnation, now_s, got)) is not None:
        got.append(lease)
    return got


def test_leases_are_consecutive_and_end_at_admit_until() -> None:
    made = ledger(5)
    assert [made.begin(a, 1, 0.0) for a in range(3)] == [0, 1, 2]
    assert made.begin(0, 1, 0.0, received=[0]) == 3
    assert made.begin(1, 1, 0.0, received=[1]) == 4
    assert made.begin(2, 1, 0.0, received=[2]) is None
    made.admit(Progress(6), 0.0)
    assert made.begin(1, 1, 0.0, received=[4]) is None, "lease 3 was begun when 5 were admitted, and is still out"
    assert made.begin(0, 1, 0.0, received=[3]) == 5


def test_admit_until_never_goes_down_within_an_epoch() -> None:
    made = ledger(5)
    made.admit(Progress(3), 0.0)
    assert made.admit_until == 5


def test_a_lease_lost_on_the_way_is_given_again() -> None:
    made = ledger(5)
    assert made.begin(0, 1, 0.0) == 0
    assert made.begin(0, 1, 0.0) == 0
    assert made.begin(0, 1, 0.0, received=[0]) == 1
    assert made.begun == 2


def test_a_lease_given_again_begins_with_the_weights_of_now() -> None:
    made = ledger(1)
    assert made.begin(0, 1, 0.0) == 0
    made.admit(Progress(3), 0.0)
    assert made.begin(1, 1, 0.0) is None, "the one that is out was begun when only one was admitted"
    assert made.begin(0, 1, 0.0) == 0
    assert made.begin(1, 1, 0.0) == 1


def test_a_new_life_frees_the_former_ones_lease_at_once() -> None:
    made = ledger(1)
    assert made.begin(0, 1, 0.0) == 0
    assert made.begin(1, 7, 0.0) is None
    assert made.begin(0, 2, 0.0) == 1
    assert (made.begun, made.expired_total) == (1, 1)


def test_a_replaced_life_is_refused() -> None:
    made = ledger(9)
    made.begin(0, 1, 0.0)
    made.begin(0, 2, 0.0)
    with pytest.raises(Fenced, match="actor 0"):
        made.begin(0, 1, 0.0, received=[0])
    assert made.begin(0, 2, 0.0, received=[1]) == 2


def test_a_silent_actors_lease_expires_and_counts_again_if_it_comes_back() -> None:
    made = ledger(1)
    assert made.begin(0, 1, 0.0) == 0
    assert made.begin(1, 1, 9.9) is None
    assert made.begin(1, 1, 10.0) == 1
    assert made.begin(0, 1, 11.0, received=[0]) is None
    assert made.begun == 2, "both fragments exist"


def test_an_expired_fragment_that_came_is_counted() -> None:
    made = ledger(2)
    assert take(made, 0, 2) == [0, 1]
    made.begin(0, 2, 0.0)  # a new life; lease 1 was taken for lost and replaced by 2
    assert made.begun == 2
    made.admit(Progress(2, next_lease=3, consumed=3), 0.0)
    assert made.begun == 3


def test_lost_fragments_are_missed_after_the_ttl_only() -> None:
    made = ledger(4)
    assert take(made, 0, 5) == [0, 1, 2, 3]  # all put; 2 and 3 die with the actor before the carrier has them
    starving = Progress(4, consumed=2, complete=True)
    made.admit(starving, 1.0)
    made.admit(starving, 10.9)
    assert made.begin(0, 2, 10.9) is None
    made.admit(starving, 11.0)
    assert [made.begin(a, 2, 11.0) for a in range(3)] == [4, 5, None]


def test_without_a_complete_account_nothing_is_missed() -> None:
    made = ledger(2)
    take(made, 0, 3)
    for now_s in (1.0, 20.0, 40.0):
        made.admit(Progress(2, consumed=0), now_s)
    assert made.begin(1, 1, 41.0) is None


def test_a_new_learner_epoch_counts_what_it_knows_without_a_burst() -> None:
    made = ledger(8)
    assert take(made, 0, 5) == [0, 1, 2, 3, 4]  # 4 is out
    made.rebuild(Progress(5, next_lease=2, consumed=2, backlog=2), 0.0)
    assert made.begun == 5
    assert made.begin(1, 1, 0.0) is None
    made.admit(Progress(6), 0.0)
    assert made.begin(1, 1, 0.0) == 5


def test_expiries_before_a_restart_do_not_starve_afterwards() -> None:
    made = ledger(4)
    for life in range(100):
        assert made.begin(0, life, 0.0) is not None
    assert made.state == LedgerState(100, 1, 4, out=((99, 0, 99),))
    fresh = Ledger(settle_s=5.0)
    fresh.rebuild(Progress(4), 0.0, made.state)
    assert fresh.begin(1, 1, 0.0) is None, "three more may be out there"
    assert fresh.begin(1, 1, 5.0) == 100 + 65536


def test_a_restarted_server_hands_out_no_number_twice_and_no_burst() -> None:
    made = ledger(6)
    held = {a: made.begin(a, 1, 0.0) for a in range(4)}
    known = LedgerState(2, 2, 6)  # the learner heard of two of them only
    fresh = succeeded(known, Progress(6))
    for actor, lease in held.items():
        assert fresh.begin(actor, 1, 101.0, received=[lease or 0]) is None
    assert [fresh.begin(a, 1, 105.0, received=[held[a] or 0]) for a in range(3)] == [65538, 65539, None]


def test_leases_lost_with_the_server_are_given_again() -> None:
    made = ledger(2)
    held = [made.begin(a, 1, 0.0) for a in range(2)]
    fresh = succeeded(made.state, Progress(2))
    assert [fresh.begin(a, 1, 100.0) for a in range(2)] == held == [0, 1], "they never got them, and nobody waits"
    assert fresh.begun == 2


def test_what_the_former_server_gave_counts_once_however_far_its_actor_got() -> None:
    made = ledger(6)
    assert [made.begin(a, 1, 0.0) for a in range(2)] == [0, 1]
    known = made.state
    assert made.begin(0, 1, 0.0, received=[0]) == 2, "after the learner last heard"
    fresh = succeeded(known, Progress(6, next_lease=1, consumed=1))
    assert fresh.begin(0, 1, 101.0, received=[0, 2]) is None
    assert fresh.begin(1, 1, 101.0, received=[1]) is None
    taken = [fresh.begin(a, 1, 105.0, received=[0, 2] if a == 0 else [1] if a == 1 else []) for a in range(4)]
    assert taken == [65538, 65539, 65540, None], "three of six were begun before"


def test_a_new_life_after_a_restart_frees_the_former_ones_lease() -> None:
    made = ledger(1)
    made.begin(0, 1, 0.0)
    fresh = succeeded(made.state, Progress(1))
    assert fresh.begin(1, 7, 101.0) is None
    assert fresh.begin(0, 2, 101.0) == 65537


def test_a_lease_of_the_former_server_expires_with_its_actor() -> None:
    made = ledger(1)
    made.begin(0, 1, 0.0)
    fresh = succeeded(made.state, Progress(1))
    assert fresh.begin(1, 7, 109.9) is None
    assert fresh.begin(1, 7, 110.0) == 65537


def test_lockstep_gives_every_stream_its_own_numbers() -> None:
    made = ledger(6, workers=3)
    assert made.begin(2, 1, 0.0) == 2
    assert made.begin(0, 1, 0.0) == 0
    assert take(made, 1, 9) == [1, 4]
    assert made.begin(2, 1, 0.0, received=[2]) == 5
    assert made.begin(2, 1, 0.0, received=[5]) is None
    made.admit(Progress(7), 0.0)
    assert made.begin(2, 1, 0.0, received=[5]) is None
    assert made.begin(0, 1, 0.0, received=[0]) == 3
    assert made.begin(0, 1, 0.0, received=[3]) == 6


def test_lockstep_gives_a_new_life_the_undelivered_number() -> None:
    made = ledger(9, workers=2)
    assert take(made, 0, 2) == [0, 2]
    assert made.begin(0, 2, 1000.0) == 2, "it never expires to anybody else"
    assert made.begin(0, 2, 1000.0, received=[2]) == 4


def test_lockstep_refuses_other_streams() -> None:
    with pytest.raises(UsageError, match="workers 0 to 1"):
        ledger(9, workers=2).begin(2, 1, 0.0)


@pytest.mark.parametrize(("consumed", "backlog", "expected"), [(4, 2, [6, 7]), (4, 0, [4, 5]), (3, 0, [4, 3])])
def test_lockstep_goes_on_or_goes_back_with_a_new_learner(consumed: int, backlog: int, expected: list[int]) -> None:
    made = ledger(6, workers=2)
    assert take(made, 0, 4) == [0, 2, 4]
    assert take(made, 1, 4) == [1, 3, 5]
    made.rebuild(Progress(8, consumed=consumed, backlog=backlog), 0.0)
    assert [made.begin(s, 1, 0.0, received=[4 + s]) for s in (0, 1)] == expected


def test_lockstep_after_a_server_restart_follows_what_actors_report() -> None:
    fresh = Ledger(workers=2)
    fresh.rebuild(Progress(8, consumed=2), 0.0, LedgerState(6, 6, 8))
    assert fresh.begin(0, 1, 0.0, received=[4]) == 6
    assert fresh.begin(1, 99, 0.0) == 3, "a new life cannot know what the former put; the learner drops what it has"
