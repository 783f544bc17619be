"""Workers that come, live, freeze and go, and the end of a run, over real channels."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from headrace.common.errors import Finished, TransportError
from headrace.common.waiting import Waiting
from headrace.common.weights.base import Progress
from headrace.common.weights.client import Client
from headrace.common.weights.join import join

from .servers import PLENTY, RUN, Rig, collect, wait_for, weights


def test_a_worker_that_ends_gives_its_lease_back_at_once(rig: Rig) -> None:
    server = rig.server(lost_after_s=1000.0)
    rig.publisher(server.address).publish(weights(0), Progress(1))
    first, second = rig.subscriber(server.address, 0), rig.subscriber(server.address, 1)
    assert first.next(-1, 10.0) is not None
    assert second.next(-1, 0.2) is None
    first.close()
    assert second.next(-1, 5.0) is not None, "well before the lease would be overdue"


def test_a_worker_that_collects_for_long_keeps_its_lease_by_its_heartbeat(rig: Rig) -> None:
    server = rig.server(lost_after_s=1.6)
    rig.publisher(server.address).publish(weights(0), Progress(1))
    slow, other = rig.subscriber(server.address, 0), rig.subscriber(server.address, 1)
    assert slow.next(-1, 10.0) is not None
    assert other.next(-1, 4.0) is None
    slow._heart._send = lambda: None  # type: ignore[method-assign]  # frozen
    assert other.next(-1, 4.0) is not None, "well before the lease would be overdue"


def test_the_end_of_a_run_reaches_everybody(rig: Rig) -> None:
    server = rig.server(farewell_s=0.3)
    publisher = rig.publisher(server.address)
    publisher.publish(weights(0), Progress(0))
    publisher.flush(10.0)
    follower = rig.follower(server.address)
    assert follower.newest(-1, 10.0) is not None
    ended: list[str] = []

    def wait(name: str, ask: Callable[[], object]) -> None:
        with pytest.raises(Finished):
            ask()
        ended.append(name)

    waiting = [
        threading.Thread(target=wait, args=("actor", lambda: rig.subscriber(server.address).next(-1, 20.0))),
        threading.Thread(target=wait, args=("evaluator", lambda: follower.newest(0, 20.0))),
    ]
    for thread in waiting:
        thread.start()
    wait_for(lambda: rig.server_metrics.value("weights_subscribers") == 2)
    assert not server.all_went_home
    publisher.admit(Progress(0, finished=True))
    for thread in waiting:
        thread.join(20.0)
    assert sorted(ended) == ["actor", "evaluator"]
    wait_for(lambda: server.all_went_home)
    with pytest.raises(Finished):
        join(Client(server.address, "", None), RUN, 1, 1, Waiting("actor", 5.0))
    heir = rig.publisher(server.address)
    heir.publish(weights(0, epoch=2), PLENTY)
    heir.flush(10.0)
    assert rig.subscriber(server.address, 5).next(-1, 20.0) is not None, "it goes on with a new learner"


def test_who_is_waited_for_is_shown(rig: Rig) -> None:
    server = rig.server(workers=2, lost_after_s=1000.0)
    rig.publisher(server.address).publish(weights(0), Progress(2))
    shown = rig.server_metrics.value
    first, second = rig.subscriber(server.address, 0), rig.subscriber(server.address, 1)
    assert collect(first, -1, 10.0) is not None
    assert first.next(0, 0.1) is None  # it says that it has put
    wait_for(lambda: shown("lease_oldest_worker") == 1)
    wait_for(lambda: min(shown("lease_oldest_seconds"), shown("lease_oldest_silent_seconds")) > 0.5)
    assert collect(second, -1, 10.0) is not None
    assert second.next(0, 0.1) is None
    wait_for(lambda: shown("lease_oldest_worker") == -1)


def test_who_was_not_told_its_number_is_given_a_free_one(rig: Rig) -> None:
    server = rig.server()
    rig.publisher(server.address).publish(weights(0), PLENTY)
    assert rig.subscriber(server.address, 1).next(-1, 10.0) is not None
    client = Client(server.address, "", None)
    assert [list(join(client, RUN, 70 + n, 2, Waiting("actor", 5.0))) for n in range(2)] == [[0, 2], [3, 4]]
    client.close()


def test_who_joins_lockstep_too_late_waits_and_says_for_what(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.common.waiting.FIRST_WORD_S", 0.0)
    server = rig.server(workers=2, lost_after_s=1000.0)
    rig.publisher(server.address).publish(weights(0), PLENTY)
    client, said = Client(server.address, "", None), list[str]()
    assert list(join(client, RUN, 1, 2, Waiting("actor", 5.0))) == [0, 1]
    with pytest.raises(TransportError, match="1 worker numbers of 2 that no living actor has"):
        join(client, RUN, 2, 1, Waiting("actor", 0.6, said.append))
    assert said
    client.close()
