"""Learners that come back or should not, and servers that are killed: real processes, real SIGKILL."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from headrace.common.errors import Fenced, TransportError
from headrace.common.weights.base import Progress
from tests.ports import free_port

from .servers import PLENTY, Rig, collect, kill, wait_for, weights


def test_a_killed_server_is_refilled_without_a_burst(rig: Rig) -> None:
    port = free_port()
    process = rig.process(port)
    publisher = rig.publisher(f"127.0.0.1:{port}")
    publisher.publish(weights(5), Progress(8))
    actors = [rig.subscriber(f"127.0.0.1:{port}", i) for i in range(3)]
    leases = []
    for actor in actors:
        for have in (-1, 5):
            lease = collect(actor, have, 10.0)
            assert lease is not None
            leases.append(lease.number)
    assert sorted(leases) == [0, 1, 2, 3, 4, 5], "six of eight"
    kill(process)
    assert actors[0].next(5, 0.5) is None, "while it is away the actor keeps what it has"
    rig.process(port)

    def drain(actor_id: int) -> None:
        while (lease := collect(actors[actor_id], 5, 5.0)) is not None:
            assert lease.weights is None, "the same version: nothing to send"
            leases.append(lease.number)

    threads = [threading.Thread(target=drain, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len(leases) == 8, "the two that were left, and none twice"
    assert len(set(leases)) == 8
    publisher.publish(weights(6), Progress(9))
    lease = actors[1].next(5, 20.0)
    assert lease is not None
    assert lease.weights is not None
    assert lease.weights.version == 6
    assert rig.learner_metrics.value("weights_encodes_total") == 2, "refilled with what was encoded before"


def test_the_newest_version_reaches_a_server_that_was_away(rig: Rig) -> None:
    port = free_port()
    publisher = rig.publisher(f"127.0.0.1:{port}")
    publisher.publish(weights(0), PLENTY)  # nobody listens yet
    rig.process(port)
    lease = rig.subscriber(f"127.0.0.1:{port}").next(-1, 30.0)
    assert lease is not None
    assert lease.weights is not None
    assert lease.weights.version == 0


def test_publishing_gives_up_after_the_down_timeout(rig: Rig) -> None:
    publisher = rig.publisher(f"127.0.0.1:{free_port()}", down_timeout_s=0.5)
    publisher.publish(weights(0), PLENTY)
    with pytest.raises(TransportError, match="away for"):
        publisher.publish(weights(1), PLENTY)


def test_a_learner_that_only_waits_hears_of_a_dead_server(rig: Rig) -> None:
    server = rig.server()
    publisher = rig.publisher(server.address, down_timeout_s=0.5)
    publisher.publish(weights(0), PLENTY)
    publisher.flush(10.0)
    server.stop(0.0)

    def admit_fails() -> bool:
        try:
            publisher.admit(PLENTY)
        except TransportError:
            return True
        return False

    wait_for(admit_fails)


def test_an_old_learner_is_fenced_and_the_new_one_goes_on_from_its_checkpoint(rig: Rig) -> None:
    server = rig.server()
    old = rig.publisher(server.address)
    old.publish(weights(50, epoch=1), PLENTY)
    actor = rig.subscriber(server.address)
    assert collect(actor, -1, 10.0) is not None
    new = rig.publisher(server.address)
    new.publish(weights(40, epoch=2), PLENTY)
    new.flush(10.0)
    lease = actor.next(50, 10.0)
    assert lease is not None
    assert lease.weights is not None
    assert (lease.learner_epoch, lease.weights.version) == (2, 40), "back, but in a new epoch"
    old.publish(weights(51, epoch=1), PLENTY)
    with pytest.raises(Fenced, match="2 has taken over"):
        old.flush(10.0)
    with pytest.raises(Fenced):
        old.admit(PLENTY)


def test_an_old_learner_that_only_waits_is_fenced_too(rig: Rig) -> None:
    server = rig.server()
    old, new = rig.publisher(server.address), rig.publisher(server.address)
    old.publish(weights(50, epoch=1), PLENTY)
    old.flush(10.0)
    new.publish(weights(40, epoch=2), PLENTY)
    new.flush(10.0)

    def fenced() -> bool:
        try:
            old.admit(PLENTY)
        except Fenced:
            return True
        return False

    wait_for(fenced)
    assert server.store.current is not None
    assert server.store.current.order == (2, 40)


def test_a_second_learner_in_the_same_epoch_is_fenced(rig: Rig) -> None:
    server = rig.server()
    first, second = rig.publisher(server.address), rig.publisher(server.address)
    first.publish(weights(1), PLENTY)
    first.flush(10.0)
    second.publish(weights(2), PLENTY)
    with pytest.raises(Fenced, match="only one may"):
        second.flush(10.0)


def test_an_actor_that_saw_the_new_learner_takes_nothing_from_a_server_of_the_old(rig: Rig) -> None:
    new, old = rig.server(), rig.server()
    rig.publisher(new.address).publish(weights(0, epoch=2), PLENTY)
    rig.publisher(old.address).publish(weights(9, epoch=1), PLENTY)
    actor = rig.subscriber(new.address)
    assert actor.next(-1, 10.0) is not None
    stray = rig.subscriber(old.address)
    stray._have = actor._have
    assert stray.next(0, 0.3) is None


def test_sigterm_ends_a_server_with_code_0(rig: Rig) -> None:
    port = free_port()
    process = rig.process(port)
    publisher = rig.publisher(f"127.0.0.1:{port}")
    publisher.publish(weights(0), Progress(0))
    publisher.flush(10.0)
    waiting = threading.Thread(target=rig.subscriber(f"127.0.0.1:{port}").next, args=(-1, 2.0))
    waiting.start()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - began < 10
    waiting.join(20)
