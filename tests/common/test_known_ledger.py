"""What the learner's end remembers of leases that are out: what it was told, until they came, and not without bound."""

from __future__ import annotations

import pytest

from headrace.common.weights.base import Progress
from headrace.common.weights.known_ledger import KnownLedger
from headrace.common.wire import paramserver_pb2 as pb


def test_so_many_are_remembered_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.common.weights.known_ledger.MAX_OUT", 3)
    known = KnownLedger()
    for number in range(10):
        known.hear(pb.LedgerState(next_lease=number + 1, out=[pb.Lease(number=number)]), Progress(20))
    told = known.to_wire(Progress(20, spent=((8, 9),)))
    assert told is not None
    assert [lease.number for lease in told.out] == [7, 9]
