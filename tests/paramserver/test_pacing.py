"""The promise the ledger is for: whatever the actors' speeds, no fragment is trained beyond max_staleness, none is
thrown away, and nobody waits for ever. Actors and learner are simulated; the ledger is the real one."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.common.lease_set import LeaseSet
from headrace.common.weights.base import Progress
from headrace.paramserver.ledger import Ledger

VERSIONS = 12


@settings(max_examples=200, deadline=None)
@given(
    actors=st.integers(1, 6),
    per_version=st.integers(1, 5),
    max_staleness=st.integers(0, 3),
    choices=st.lists(st.integers(0, 1000), min_size=50, max_size=400),
)
def test_no_fragment_is_trained_beyond_the_bound(
    actors: int, per_version: int, max_staleness: int, choices: list[int]
) -> None:
    ledger, version, arrived, came = Ledger(), 0, deque[int](), LeaseSet()
    ledger.admit(Progress((1 + max_staleness) * per_version), 0.0)
    began_at: dict[int, int] = {}
    received: dict[int, list[int]] = {a: [] for a in range(actors)}
    total = 0

    def ask(actor: int) -> None:
        lease = ledger.begin(actor, 1, 0.0, received[actor])
        if lease is not None:
            began_at[actor] = version
            received[actor].append(lease)

    def learn() -> None:
        nonlocal version
        while len(arrived) >= per_version:
            staleness = [version - arrived.popleft() for _ in range(per_version)]
            assert max(staleness) <= max_staleness
            version += 1
            admit_until = (version + 1 + max_staleness) * per_version
            ledger.admit(Progress(admit_until, accepted=total, spent=came.runs), 0.0)

    def turn(actor: int) -> None:
        nonlocal total
        if actor in began_at:
            came.add(received[actor][-1])
            total += 1
            arrived.append(began_at.pop(actor))
            learn()
        ask(actor)

    for choice in choices:  # any order: some actors are much slower than others
        turn(choice % actors)
    before = version
    for _ in range(4 * per_version * VERSIONS):  # then all of them in turn: nothing is stuck
        for actor in range(actors):
            turn(actor)
    assert version > before
