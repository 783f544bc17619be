"""The ledger by examples; test_ledger_model.py holds it to a slow model, with liars."""

from __future__ import annotations

import pytest

from headrace.common.errors import Fenced, UsageError
from headrace.common.lease_set import LeaseSet
from headrace.common.weights.base import LedgerState, Progress
from headrace.paramserver.ledger import EPOCH_LEASES, SKIPPED, Ledger
from headrace.paramserver.workers import Busy

EXTREMES = [-(2**63), -1, 2**31, 2**62, 2**63 - 1]


def ledger(admit_until: int, **options: float) -> Ledger:
    made = Ledger(lost_after_s=3.0, delivery_s=10.0, **options)  # type: ignore[arg-type]
    made.rebuild(Progress(admit_until, complete=True), 0.0)
    return made


def succeeded(known: LedgerState, progress: Progress) -> Ledger:
    """The ledger of a server started anew at 100 s; the learner knows its predecessor as ``known``."""
    made = Ledger(lost_after_s=3.0, delivery_s=10.0, settle_s=5.0)
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
    assert made.begin(1, 1, 0.0, received=[4]) is None, "lease 3 was begun when 5 were admitted, and is still held"
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
    assert made.begin(1, 1, 0.0) is None, "the one that is held was begun when only one was admitted"
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
    with pytest.raises(Fenced, match="actor 0"):
        made.beat(0, 1, 0.0)
    assert made.begin(0, 2, 0.0, received=[1]) == 2


def test_a_lease_lives_by_heartbeats_whatever_the_length_of_a_fragment() -> None:
    made = ledger(1)
    assert made.begin(0, 1, 0.0) == 0
    for second in range(9):
        made.beat(0, 1, float(second))
        made.expire(float(second))
    assert made.begin(1, 1, 8.0) is None
    made.expire(11.0)
    assert made.begin(1, 1, 11.0) == 1, "not heard of for three seconds"
    assert made.begin(0, 1, 11.0, received=[0]) is None
    assert made.begun == 2, "both fragments exist"


def test_who_takes_its_leave_gives_back_what_it_holds() -> None:
    made = ledger(2)
    assert made.begin(0, 1, 0.0) == 0
    made.beat(0, 1, 0.0, leaving=True)
    assert (made.begun, made.begin(1, 1, 0.0)) == (1 - 1, 1)
    made.beat(1, 1, 0.0, received=[1], leaving=True)
    assert made.begun == 1, "it had put that one"


def test_a_held_lease_is_overdue_though_its_worker_is_heard_of() -> None:
    made = ledger(8)
    assert take(made, 0, 4) == [0, 1, 2, 3]  # it takes no time at all: 10 s are the least
    made.begin(1, 1, 0.0)
    for second in range(10):
        made.beat(1, 1, float(second))
        made.expire(float(second))
    assert 4 in made.out.held
    made.beat(1, 1, 10.0)
    made.expire(10.0)
    assert 4 not in made.out.held


def test_what_is_usual_decides_what_is_overdue() -> None:
    made = ledger(100)
    got, now_s = list[int](), 0.0
    for _ in range(5):
        lease = made.begin(0, 1, now_s, got)
        assert lease is not None
        got.append(lease)
        now_s += 2.0
    assert made.lease_max_s == 40.0


def test_a_refused_fragment_frees_its_lease_once() -> None:
    made = ledger(2)
    assert take(made, 0, 3) == [0, 1]
    for _ in range(3):
        made.admit(Progress(2, accepted=0, spent=((0, 1),)), 0.0)
    assert [made.begin(a, 1, 0.0) for a in (1, 2)] == [2, None]


def test_a_fragment_that_comes_after_its_lease_was_given_up_counts_again() -> None:
    made = ledger(2)
    assert take(made, 0, 2) == [0, 1]
    assert made.begin(0, 2, 0.0) == 2  # a new life; lease 1 was taken for lost
    assert made.begun == 2
    made.admit(Progress(2, accepted=2, spent=((0, 2),)), 0.0)
    assert made.begun == 3, "0 and 1 came, 2 is in the making"


def test_a_new_learner_epoch_counts_what_waits_without_a_burst() -> None:
    made = ledger(8)
    assert take(made, 0, 5) == [0, 1, 2, 3, 4]  # 4 is held; 0 and 1 were trained on, 2 and 3 wait in the log
    made.admit(Progress(8, accepted=4, spent=((0, 4),)), 0.0)
    made.rebuild(Progress(5, next_lease=2, accepted=2, spent=((0, 2),), backlog=2, complete=True), 0.0)
    assert made.begun == 5
    assert made.begin(1, 1, 0.0) is None
    made.admit(Progress(6, 5, accepted=4, spent=((0, 4),), complete=True), 0.0)
    assert made.begin(1, 1, 0.0) == 5


def test_a_restarted_server_hands_out_no_number_twice_and_no_burst() -> None:
    made = ledger(6)
    held = {a: made.begin(a, 1, 0.0) for a in range(4)}
    known = LedgerState(2, 2, 6, ((0, 0, 1), (1, 1, 1)))  # the learner heard of two of them only
    fresh = succeeded(known, Progress(6, 2))
    for actor, lease in held.items():
        assert fresh.begin(actor, 1, 101.0, received=[lease or 0]) is None
    fresh.expire(105.0)
    first = 2 + SKIPPED
    assert [fresh.begin(a, 1, 105.0, received=[held[a] or 0]) for a in range(3)] == [first, first + 1, None]


def test_workers_the_learner_had_not_heard_of_make_no_burst() -> None:
    """Each of three has put two fragments; the learner heard of the first ones, and of two workers."""
    known = LedgerState(3, 3, 8, ((0, 0, 1), (1, 1, 1), (2, 2, 1)), workers=2)
    fresh = succeeded(known, Progress(8))
    assert fresh.state().begun == 3, "known; what is held back besides is a guess"
    put = {actor: [actor, actor + 3] for actor in range(3)}
    assert [fresh.begin(actor, 1, 101.0, received) for actor, received in put.items()] == [None] * 3
    fresh.expire(106.0)
    given = [fresh.begin(actor, 1, 106.0, received) for actor, received in put.items()]
    assert [lease is not None for lease in given] == [True, True, False]


def test_leases_lost_with_the_server_are_given_again() -> None:
    made = ledger(2)
    held = [made.begin(a, 1, 0.0) for a in range(2)]
    fresh = succeeded(made.state(), Progress(2))
    assert [fresh.begin(a, 1, 100.0) for a in range(2)] == held == [0, 1], "they never got them, and nobody waits"
    assert fresh.begun == 2


def test_a_new_life_after_a_restart_frees_the_former_ones_lease() -> None:
    made = ledger(1)
    made.begin(0, 1, 0.0)
    fresh = succeeded(made.state(), Progress(1))
    assert fresh.begin(1, 7, 101.0) is None
    assert fresh.begin(0, 2, 101.0) == 1 + SKIPPED


def test_where_learner_and_server_both_died_no_number_comes_twice() -> None:
    for epoch, at_checkpoint in ((2, 3), (2, 0), (3, 3)):  # a learner may die before any checkpoint, and again
        fresh = Ledger()
        fresh.rebuild(Progress(8, next_lease=at_checkpoint, accepted=3, spent=((0, 3),)), 0.0, epoch=epoch)
        assert fresh.begin(0, 1, 0.0, received=[77]) == (epoch - 1) * EPOCH_LEASES, "what it put is in the log, or lost"


# --- liars ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", EXTREMES)
def test_numbers_nobody_can_have_received_change_nothing(number: int) -> None:
    for made, can_be in ((ledger(6), 0), (succeeded(LedgerState(2, 2, 6), Progress(6, 2)), 4)):
        made.expire(200.0)
        before, admit_until = made.state(), made.admit_until
        for life in range(20):
            made.begin(9, life, 200.0, received=[number, 3, 4, 5])
            made.beat(9, life, 200.0, received=[number], leaving=True)
        assert made.begun <= before.begun + can_be, "no more than a former server can have handed out"
        assert (made.admit_until, made.next_lease) == (admit_until, before.next_lease + 20)


def test_of_what_a_former_server_may_have_given_no_more_is_believed_than_it_could() -> None:
    fresh = succeeded(LedgerState(0, 0, 4), Progress(4))
    for liar in range(50):
        fresh.begin(liar, 1, 101.0, received=list(range(liar * 16, liar * 16 + 16)))
    assert fresh.begun == 4
    for now_s in (112.0, 113.0):
        fresh.admit(Progress(4, complete=True), now_s)
    assert fresh.begun == 0, "and nothing came of it"


@pytest.mark.parametrize("actor_id", [n for n in EXTREMES])
def test_actor_ids_nobody_can_have_are_refused(actor_id: int) -> None:
    with pytest.raises(UsageError, match="numbers begin at 0"):
        ledger(6).begin(actor_id, 1, 0.0)


def deliver(made: Ledger, second: int, lease: int, spent: LeaseSet) -> None:
    """The learner has the fragment, and lets one more begin; nothing else is under way in the carrier."""
    spent.add(lease)
    accepted = sum(end - first for first, end in spent)
    made.admit(Progress(8 + accepted, accepted=accepted, spent=spent.runs, complete=True), float(second))


@pytest.mark.parametrize("claims", [False, True], ids=["keeps", "claims"])
@pytest.mark.parametrize("peer", ["liar", "honest"], ids=["another machine", "the same machine"])
def test_who_takes_leases_under_invented_names_and_delivers_nothing_keeps_nobody_waiting(
    peer: str, claims: bool
) -> None:
    made, spent = ledger(8, per_peer=4), LeaseSet()
    mine: list[int] = [made.begin(0, 1, 0.0, peer="honest") or 0]
    got: dict[int, int] = {}
    for second in range(500):
        deliver(made, second, mine[-1], spent)
        for liar in range(second * 20 + 100, second * 20 + 120):
            if (lease := made.begin(liar, 1, float(second), peer=peer)) is not None:
                got[liar] = lease
        for liar, lease in got.items():
            if claims:
                made.begin(liar, 1, float(second), received=[lease], peer=peer)
            else:
                made.beat(liar, 1, float(second))
        made.expire(float(second))
        if second < 20:
            mine.append(made.begin(0, 1, float(second), received=mine[-16:], peer="honest") or mine[-1])
            continue  # the first of them are waited for, for 20 times the usual
        out = [lease for lease in made.out if lease.worker.actor_id >= 100]
        assert len(out) <= 4, "half of them, and what they claim earns them no more"
        lease = made.begin(0, 1, float(second), received=mine[-16:], peer="honest")
        assert lease is not None, f"it goes on, {second} s later"
        mine.append(lease)
    assert got


def test_what_a_worker_tells_a_new_server_is_told_to_the_learner_whenever_it_calls() -> None:
    fresh = succeeded(LedgerState(4, 4, 6), Progress(6, accepted=4, spent=((0, 4),)))
    heard_lease = fresh.state().next_lease  # the learner has heard of the leap before any worker called
    fresh.begin(0, 1, 101.0, received=[4])
    told = fresh.state(heard_lease).out
    assert told == ((4, 0, 1),)
    fresh.admit(Progress(7, accepted=5, spent=((0, 5),)), 102.0)
    assert fresh.state(heard_lease).out == (), "until it came"


def test_after_a_restart_nobody_is_a_newcomer_who_had_a_lease() -> None:
    """One of them is slow to call again: the others' fragments are waited for as they were."""
    fresh = succeeded(LedgerState(4, 2, 6, ((0, 0, 1), (1, 1, 1))), Progress(6))
    fresh.beat(1, 1, 102.0)
    fresh.expire(104.0)  # worker 0 was not heard of
    assert [lease.binds for lease in fresh.out.held.values()] == [True]
    assert fresh.begin(1, 1, 104.0) == 1, "the lease it had"
    fresh.begin(2, 1, 104.0)
    assert [lease.binds for lease in fresh.out.held.values()] == [True, True]


def test_nobody_pays_for_what_others_on_its_machine_once_did() -> None:
    """A machine where attackers took their share and never delivered, and one where they do so now."""
    made, spent = ledger(8, per_peer=4), LeaseSet()
    for n in range(4):
        assert made.begin(100 + n, 1, 0.0, peer="here") is not None
    made.expire(10.0)
    assert made.begun == 0
    made.begin(900, 1, 10.0, peer="there")
    lease = made.begin(0, 1, 10.0, peer="here")
    assert lease is not None
    deliver(made, 11, lease, spent)
    assert made.begin(0, 1, 11.0, received=[lease], peer="here") is not None


def test_a_newcomer_gets_its_turn_though_another_machine_takes_what_it_can() -> None:
    made, spent = ledger(8, per_peer=4), LeaseSet()
    deliver(made, 0, made.begin(0, 1, 0.0, peer="honest") or 0, spent)
    taken = [made.begin(100 + n, 1, 0.0, peer="liar") for n in range(20)]
    assert [lease is not None for lease in taken] == [True] * 2 + [False] * 18
    assert made.begin(1, 1, 0.0, peer="honest") is not None


def test_of_whom_nothing_came_all_together_have_half_while_others_deliver() -> None:
    made = ledger(8, per_peer=4)
    assert made.begin(0, 1, 0.0) == 0
    made.admit(Progress(9, accepted=1, spent=((0, 1),)), 0.0)
    taken = [made.begin(100 + n, 1, 0.0) for n in range(20)]
    assert [lease is not None for lease in taken] == [True] * 4 + [False] * 16
    claims = [made.begin(100 + n, 1, 0.0, received=[lease or 0]) for n, lease in enumerate(taken)]
    assert not any(claims), "to say that it put them earns it no more"
    assert made.begin(0, 1, 0.0, received=[0]) is not None, "who delivers goes on"


def test_the_dead_do_not_keep_half_of_the_leases_from_newcomers() -> None:
    made = ledger(8, per_peer=4)
    assert made.begin(0, 1, 0.0) == 0
    made.admit(Progress(9, accepted=1, spent=((0, 1),)), 0.0)
    assert made.begin(0, 1, 0.0, received=[0]) == 1
    assert len([n for n in range(20) if made.begin(100 + n, 1, 2.0) is not None]) == 4
    made.expire(3.0)  # the one that delivered is not heard of any more
    assert len([n for n in range(20) if made.begin(200 + n, 1, 3.0) is not None]) == 4, "all that is left of nine"


def test_a_machine_that_delivers_has_half_while_another_calls() -> None:
    made = ledger(8, per_peer=4)
    got = [made.begin(n, 1, 0.0, peer="here") for n in range(8)]
    made.admit(Progress(16, accepted=8, spent=((0, 8),)), 0.0)
    assert made.begin(900, 1, 0.0, peer="there") is not None
    again = [made.begin(n, 1, 0.0, received=[got[n] or 0], peer="here") for n in range(8)]
    assert [lease is not None for lease in again] == [True] * 4 + [False] * 4


def test_alone_a_machine_may_have_them_all() -> None:
    made = ledger(8, per_peer=4)
    assert [made.begin(n, 1, 0.0, peer="one") for n in range(9)] == [*range(8), None]


def test_another_machine_does_not_take_over_a_worker_that_is_alive() -> None:
    made = ledger(8)
    assert made.begin(0, 1, 0.0, peer="here") == 0
    with pytest.raises(Busy, match="is alive"):
        made.begin(0, 2, 2.9, peer="there")
    assert made.begin(0, 2, 3.0, peer="there") == 1, "it was not heard of for three seconds"


# --- joining -------------------------------------------------------------------------------------------------------


def test_who_joins_gets_numbers_that_nobody_alive_has() -> None:
    made = ledger(8)
    made.begin(1, 1, 0.0)
    assert made.join(2, 50, 0.0, "") == [0, 2]
    assert made.join(1, 51, 0.0, "") == [3]
    assert made.join(1, 52, 3.0, "") == [0], "not heard of since"
    assert made.join(0, 53, 0.0, "") == made.join(1 << 31, 53, 0.0, "") == []
