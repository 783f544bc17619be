"""Lockstep after fragments were refused whose leases are spent by that (docs/faults.md, "Not kept yet")."""

from __future__ import annotations

import pytest

from headrace.common.weights.base import Progress
from headrace.paramserver.lockstep import LockstepLedger


@pytest.mark.xfail(
    reason="admit_until bounds the numbers, and those refused are used up without a version", strict=True
)
def test_it_goes_on_with_the_next_numbers() -> None:
    """Version 2, two fragments each: 4 were trained on and 70 refused."""
    ledger = LockstepLedger(2)
    ledger.rebuild(Progress(admit_until=6, accepted=4, spent=((0, 74),), complete=True), 0.0)
    assert [ledger.begin(worker, 1, 100.0) for worker in (0, 1)] == [74, 75]
