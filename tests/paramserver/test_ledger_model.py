"""The ledger against the truth: workers, a learner and servers that die, and liars among them; a world that counts
every fragment itself.

The world knows what the ledger can only guess: which process holds which lease, which fragments came, which are lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.common.errors import Fenced
from headrace.common.lease_set import LeaseSet
from headrace.common.weights.base import LedgerState, Progress
from headrace.paramserver.ledger import Ledger

LOST_AFTER_S, DELIVERY_S, SETTLE_S = 3.5, 10.0, 3.0
ACTORS = st.integers(0, 3)
LIES = st.lists(st.sampled_from([-1, 0, 1, 2, 3, 5, 8, 2**31, 2**32, 2**32 + 1, 2**62, 2**63 - 1]), max_size=16)


@dataclass
class Life:
    """One process life of a worker, as the world sees it. ``holds``: the lease it works on."""

    incarnation: int
    received: list[int] = field(default_factory=list)
    holds: int | None = None


class Pacing(RuleBasedStateMachine):
    """Honest workers 0 to 3 beat every second. Liars call as workers 10 and 11, claim anything and deliver nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.admit_until, self.incarnations = 0.0, 0, 0
        self.lives: dict[int, Life] = {}
        self.issued: set[int] = set()
        self.arrived, self.refused = LeaseSet(), 0
        self.in_flight: set[int] = set()
        self.overshoot = 0  # fragments that exist though the ledger had to give them up, or could not know of them
        self.ledger = Ledger(lost_after_s=LOST_AFTER_S, delivery_s=DELIVERY_S, settle_s=SETTLE_S)
        self.known, self.unheard = LedgerState(), 0
        self.ledger.rebuild(self.progress(), 0.0)

    # --- the world -------------------------------------------------------------------------------------------------

    @property
    def came(self) -> int:
        return sum(end - first for first, end in self.arrived)

    @property
    def exist(self) -> int:
        """Fragments that were accepted, are on the way, or are in the making at a living worker."""
        in_the_making = [life.holds for life in self.lives.values() if life.holds is not None]
        return self.came - self.refused + len(self.in_flight) + len(in_the_making)

    def progress(self) -> Progress:
        for number in self.in_flight:
            self.arrived.add(number)
        self.in_flight.clear()
        return Progress(
            self.admit_until, self.known_next, self.came - self.refused, self.arrived.runs, 0, complete=True
        )

    @property
    def known_next(self) -> int:
        return self.known.next_lease if hasattr(self, "known") else 0

    def put(self, life: Life) -> None:
        if life.holds is not None:
            self.in_flight.add(life.holds)
            life.received.append(life.holds)
            life.holds = None

    # --- what happens ----------------------------------------------------------------------------------------------

    @rule(actor=ACTORS, reply_lost=st.booleans())
    def ask(self, actor: int, reply_lost: bool = False) -> None:
        if actor not in self.lives:
            self.incarnations += 1
            self.lives[actor] = Life(self.incarnations)
        life, before = self.lives[actor], self.ledger.issued_total
        self.put(life)
        existed = self.exist
        lease = self.ledger.begin(actor, life.incarnation, self.now_s, life.received[-16:])
        if self.ledger.issued_total > before:
            assert lease is not None
            assert lease not in self.issued, "a number is handed out once"
            assert existed - self.overshoot < self.admit_until, "never more than admitted"
            self.issued.add(lease)
        if lease is not None and not reply_lost:
            life.holds = lease

    @rule(actor=st.sampled_from([10, 11]), incarnation=st.integers(1, 3), lies=LIES, how=st.integers(0, 2))
    def lie(self, actor: int, incarnation: int, lies: list[int], how: int) -> None:
        try:
            if how == 0:
                lease = self.ledger.begin(actor, incarnation, self.now_s, lies)
                self.issued |= set() if lease is None else {lease}
            else:
                self.ledger.beat(actor, incarnation, self.now_s, lies, leaving=how == 2)
        except Fenced:
            pass

    @rule(actor=ACTORS, put=st.booleans())
    def kill(self, actor: int, put: bool) -> None:
        life = self.lives.pop(actor, None)
        if life is not None and life.holds is not None and put:
            self.put(life)
            self.overshoot += 1  # nobody was left to say so: until it comes it may be given up

    @rule(more=st.integers(0, 4), refused=st.booleans())
    def publish(self, more: int, refused: bool) -> None:
        self.admit_until += more
        fresh = len(self.in_flight)
        self.refused += fresh if refused else 0
        self.ledger.admit(self.progress(), self.now_s)
        self.known = self.ledger.state()

    @rule(seconds=st.sampled_from([1, 2, 4]))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            for actor, life in self.lives.items():
                self.ledger.beat(actor, life.incarnation, self.now_s)
            self.ledger.admit(self.progress(), self.now_s)
            self.ledger.expire(self.now_s)
        self.known = self.ledger.state()

    @rule()
    def server_restarts(self) -> None:
        held = {number for number, *_ in self.known.out}
        self.unheard += max(0, self.known.limit - self.known.begun)
        self.overshoot += sum(life.holds is not None and life.holds not in held for life in self.lives.values())
        self.overshoot += len(self.in_flight - held)
        self.ledger = Ledger(lost_after_s=LOST_AFTER_S, delivery_s=DELIVERY_S, settle_s=SETTLE_S)
        self.ledger.rebuild(self.progress(), self.now_s, self.known)
        self.known = self.ledger.state()

    @rule()
    def learner_restarts(self) -> None:
        self.ledger.rebuild(self.progress(), self.now_s)
        self.known = self.ledger.state()

    # --- what holds ------------------------------------------------------------------------------------------------

    @invariant()
    def what_is_out_was_handed_out(self) -> None:
        """But for what a former server may have handed out unheard."""
        invented = [lease for lease in self.ledger.out if lease.number not in self.issued]
        assert len(invented) <= self.unheard

    @invariant()
    def a_replaced_life_gets_nothing(self) -> None:
        for actor, life in self.lives.items():
            worker = self.ledger.workers.present(actor, life.incarnation)
            if worker is not None and worker.former:
                with pytest.raises(Fenced):
                    self.ledger.begin(actor, worker.former[-1], self.now_s)

    def teardown(self) -> None:
        """Whatever happened, and whoever lied: once the lost are given up, exactly what is free is handed out."""
        for life in self.lives.values():
            self.put(life)
        for _ in range(40):
            self.now_s += 1.0
            self.ledger.admit(self.progress(), self.now_s)
            self.ledger.expire(self.now_s)
        assert self.ledger.begun == self.came - self.refused
        free = max(0, self.admit_until + 5 - (self.came - self.refused))
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
