"""Whom a server knows: as many as fit, and from which machine they call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.common.errors import Fenced
from headrace.common.weights.base import Progress
from headrace.paramserver.workers import FORMER_LIVES, Workers
from tests.hostile.client import Detour

from .servers import Rig, weights


def test_of_invented_workers_and_machines_those_heard_of_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.paramserver.workers.MAX_WORKERS", 4)
    workers = Workers(0, 3.0)
    for n in range(100):
        workers.meet(7, 1, float(n), "here")
        workers.meet(100 + n, 1, float(n), f"machine {n}")
        assert len(workers) <= 4
        assert len(workers._peers) <= 4
    assert workers.present(7, 1) is not None
    assert workers.others("machine 99", 99.0), "here is one of them"


def test_of_the_lives_of_a_worker_so_many_are_remembered() -> None:
    workers = Workers(0, 3.0)
    for life in range(100):
        worker, _ = workers.meet(0, life, 0.0, "")
    assert [*worker.former] == [*range(99 - FORMER_LIVES, 99)]
    for life in worker.former:
        with pytest.raises(Fenced):
            workers.meet(0, life, 0.0, "")


@pytest.fixture
def elsewhere() -> Iterator[list[Detour]]:
    """Detours that make a caller come from another address; closed at the end."""
    made: list[Detour] = []
    yield made
    for one in made:
        one.close()


def test_a_machine_has_its_share_while_another_calls(rig: Rig, elsewhere: list[Detour]) -> None:
    server = rig.server(leases_per_peer=2, lost_after_s=1000.0)
    rig.publisher(server.address).publish(weights(0), Progress(8))
    elsewhere.append(Detour(server.address))
    assert rig.subscriber(elsewhere[0].address, 900).next(-1, 10.0) is not None
    here = [rig.subscriber(server.address, n).next(-1, 0.2) for n in range(4)]
    assert [lease is not None for lease in here] == [True, True, False, False]
    assert rig.subscriber(elsewhere[0].address, 901).next(-1, 10.0) is not None


def test_a_worker_that_is_alive_is_not_taken_over_from_another_machine(rig: Rig, elsewhere: list[Detour]) -> None:
    server = rig.server(lost_after_s=1000.0)
    rig.publisher(server.address).publish(weights(0), Progress(8))
    elsewhere.append(Detour(server.address))
    assert rig.subscriber(server.address, 0, incarnation=1).next(-1, 10.0) is not None
    assert rig.subscriber(elsewhere[0].address, 0, incarnation=2).next(-1, 0.5) is None
    assert rig.subscriber(server.address, 0, incarnation=3).next(-1, 10.0) is not None, "its own machine may"
