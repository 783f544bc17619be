"""The promise the ledger is for: whatever the actors' speeds, and whenever the server dies, no fragment is trained
beyond max_staleness, none is thrown away, and nobody waits for ever. Actors and learner are simulated; the ledger is
the real one."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.common.lease_set import LeaseSet
from headrace.common.weights.base import Progress
from headrace.paramserver.ledger import Ledger

VERSIONS, FOREVER_S = 12, 1e9


@settings(max_examples=300, deadline=None)
@given(
    actors=st.integers(1, 6),
    per_version=st.integers(1, 5),
    max_staleness=st.integers(0, 3),
    choices=st.lists(st.integers(0, 1000), min_size=50, max_size=400),
    deaths=st.booleans(),
)
def test_no_fragment_is_trained_beyond_the_bound(
    actors: int, per_version: int, max_staleness: int, choices: list[int], deaths: bool
) -> None:
    ledger, version, arrived, came = Ledger(lost_after_s=FOREVER_S), 0, deque[int](), LeaseSet()
    progress = Progress((1 + max_staleness) * per_version)
    ledger.admit(progress, 0.0)
    began_at: dict[int, int] = {}
    called: set[int] = set()
    received: dict[int, list[int]] = {a: [] for a in range(actors)}
    total = 0

    def ask(actor: int) -> None:
        called.add(actor)
        lease = ledger.begin(actor, 1, 0.0, received[actor])
        if lease is not None:
            began_at[actor] = version
            received[actor].append(lease)

    def learn() -> None:
        nonlocal version, progress, known
        while len(arrived) >= per_version:
            staleness = [version - arrived.popleft() for _ in range(per_version)]
            assert max(staleness) <= max_staleness
            version += 1
            admit_until = (version + 1 + max_staleness) * per_version
            progress = Progress(admit_until, accepted=total, spent=came.runs)
            ledger.admit(progress, 0.0)
            known = known if silent else ledger.state()

    def die() -> None:
        """Another server follows; the learner tells it what it last heard, and what came since. (One that dies before
        everybody called, and the learner heard of it, takes with it what it alone knew: a fragment may be refused.)"""
        nonlocal ledger, known, silent
        if len(called) < actors or known.workers < actors:
            return
        called.clear()
        ledger, silent = Ledger(lost_after_s=FOREVER_S), False
        ledger.rebuild(replace(progress, accepted=total, spent=came.runs), 0.0, known)
        if {received[actor][-1] for actor in began_at} <= {number for number, *_ in known.out}:
            ledger.expire(6.0)  # for so long nobody calls; all that is in the making was heard of
        known = ledger.state()

    def turn(actor: int) -> None:
        """It puts what it has and asks for more; the learner may have it before, or after, and trains then."""
        nonlocal total
        if actor not in began_at:
            return ask(actor)
        lease, began = received[actor][-1], began_at.pop(actor)
        if lease % 2:
            ask(actor)
            assert lease in ledger.out, "whose it is can be told"
        came.add(lease)
        total += 1
        arrived.append(began)
        learn()
        if not lease % 2:
            ask(actor)

    for actor in range(actors):
        ask(actor)
    known, silent = ledger.state(), False  # the learner has heard how many they are
    for choice in choices:  # any order: some actors are much slower than others
        if deaths and choice % 20 == 19:
            die()
        elif deaths and choice % 20 == 18:
            silent = True  # its answers are lost from now on: it is about to die
        else:
            turn(choice % actors)
    for actor in range(actors):
        turn(actor)
    ledger.expire(6.0)
    before = version
    for _ in range(4 * per_version * VERSIONS):  # then all of them in turn: nothing is stuck
        for actor in range(actors):
            turn(actor)
    assert version > before
