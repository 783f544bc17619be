"""The ledger against the truth: actors, a learner and servers that die; a world that counts every fragment itself.

The world knows what the ledger can only guess: which process holds which lease, which fragments came, which are lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.common.errors import Fenced
from headrace.common.weights.base import LedgerState, Progress
from headrace.paramserver.ledger import Ledger

TTL_S, SETTLE_S = 10.0, 3.0
ACTORS = st.integers(0, 3)


@dataclass
class Life:
    """One process life of an actor, as the world sees it. ``holds``: the lease it works on, since ``since_s``."""

    incarnation: int
    received: list[int] = field(default_factory=list)
    holds: int | None = None
    since_s: float = 0.0


class Pacing(RuleBasedStateMachine):
    """The learner's account is complete. A fragment takes less than TTL_S to make and to arrive, and actors ask a new
    server within SETTLE_S; what happens otherwise is in test_ledger.py."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.admit_until, self.incarnations = 0.0, 0, 0
        self.lives: dict[int, Life] = {}
        self.issued: set[int] = set()
        self.arrived: set[int] = set()
        self.in_flight: set[int] = set()
        self.unsure: set[int] = set()  # handed out by the former server, unknown to its successor so far
        self.unasked: set[int] = set()  # actors that have not asked the new server yet
        self.hidden = 0  # fragments that exist though nobody was left to report them
        self.ledger, self.known = Ledger(0, TTL_S, SETTLE_S), LedgerState()
        self.ledger.rebuild(self.progress(), 0.0)

    # --- the world -------------------------------------------------------------------------------------------------

    @property
    def exist(self) -> set[int]:
        """Fragments that came, are on the way, or are in the making at a living actor."""
        return self.arrived | self.in_flight | {life.holds for life in self.lives.values() if life.holds is not None}

    def progress(self) -> Progress:
        self.arrived |= self.in_flight
        self.in_flight.clear()
        return Progress(self.admit_until, max(self.arrived, default=-1) + 1, len(self.arrived), 0, complete=True)

    def put(self, life: Life) -> None:
        if life.holds is not None:
            self.in_flight.add(life.holds)
            life.holds = None

    # --- what happens ----------------------------------------------------------------------------------------------

    @rule(actor=ACTORS, reply_lost=st.booleans())
    def ask(self, actor: int, reply_lost: bool = False) -> None:
        if actor not in self.lives:
            self.incarnations += 1
            self.lives[actor] = Life(self.incarnations)
        life, before = self.lives[actor], self.ledger.issued_total
        self.put(life)
        existed = len(self.exist)
        lease = self.ledger.begin(actor, life.incarnation, self.now_s, life.received)
        self.unsure -= set(life.received)
        self.unasked.discard(actor)
        if self.ledger.issued_total > before:
            assert lease is not None
            assert lease not in self.issued, "a number is handed out once"
            assert existed - self.hidden < self.admit_until, "never more than admitted"
            self.issued.add(lease)
        if lease is not None and not reply_lost:
            life.holds, life.since_s = lease, self.now_s
            life.received.append(lease)

    @rule(actor=ACTORS, fate=st.sampled_from(["in the making", "put", "put and lost"]))
    def kill(self, actor: int, fate: str) -> None:
        life = self.lives.pop(actor, None)
        if life is None:
            return
        if life.holds is not None and fate == "put":
            self.put(life)
            self.hidden += 1
        elif life.received and fate == "put and lost":
            self.in_flight.discard(life.received[-1])
        self.hidden += len(self.unsure & set(life.received) & self.exist)

    @rule(more=st.integers(0, 4))
    def publish(self, more: int) -> None:
        self.admit_until += more
        self.ledger.admit(self.progress(), self.now_s)
        self.known = self.ledger.state

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        for actor, life in self.lives.items():
            late = life.holds is not None and self.now_s + seconds - life.since_s >= TTL_S
            if late or actor in self.unasked:
                self.ask(actor)
        self.progress()
        self.now_s += seconds

    @rule()
    def server_restarts(self) -> None:
        self.unasked = set(self.lives)
        self.unsure = {lease for lease in self.issued if lease >= self.known.next_lease}
        reported = {lease for life in self.lives.values() for lease in life.received}
        self.hidden += len((self.unsure - reported) & self.exist)
        self.ledger = Ledger(0, TTL_S, SETTLE_S)
        self.ledger.rebuild(self.progress(), self.now_s, self.known)
        self.known = self.ledger.state

    @rule()
    def learner_restarts(self) -> None:
        """Right after the server: only its actors know what they work on."""
        self.hidden += len([a for a in self.unasked & set(self.lives) if self.lives[a].holds is not None])
        self.ledger.rebuild(self.progress(), self.now_s)
        self.known = self.ledger.state

    # --- what holds ------------------------------------------------------------------------------------------------

    @invariant()
    def a_replaced_life_gets_nothing(self) -> None:
        for actor, life in self.lives.items():
            former = self.ledger._actors.get(actor)
            if former is not None and former.incarnation == life.incarnation and former.former:
                with pytest.raises(Fenced):
                    self.ledger.begin(actor, former.former[-1], self.now_s)

    def teardown(self) -> None:
        """Whatever happened: once the dead are given up and the missing missed, exactly what is free is handed out."""
        for _ in range(15):
            for actor, life in self.lives.items():
                self.ask(actor)
                while life.holds is not None:
                    self.ask(actor)
            self.now_s += TTL_S
            self.ledger.expire(self.now_s)
            self.ledger.admit(self.progress(), self.now_s)
        free = max(0, self.admit_until + 5 - len(self.arrived))
        self.admit_until += 5
        self.ledger.admit(self.progress(), self.now_s)
        taken = [self.ledger.begin(100 + i, 1, self.now_s) for i in range(free + 3)]
        assert len([lease for lease in taken if lease is not None]) == free


TestPacing = Pacing.TestCase
TestPacing.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
