"""The server over real channels: versions, leases, limits."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.common.errors import Closed, Fenced, Rejected, TransportError, UsageError
from headrace.common.weights.base import LedgerState, Progress
from headrace.common.weights.chunks import CHUNK_BYTES
from headrace.common.weights.client import CHANNEL_OPTIONS, SERVICE
from headrace.common.wire import paramserver_pb2 as pb

from .servers import PLENTY, RUN, Rig, collect, wait_for, weights


def test_weights_arrive_once_and_leave_every_time(rig: Rig) -> None:
    server = rig.server()
    rig.publisher(server.address).publish(weights(7), PLENTY)
    actor = rig.subscriber(server.address)
    first = collect(actor, -1, 10.0)
    assert first is not None
    assert first.weights is not None
    assert (first.number, first.learner_epoch, first.weights.version) == (0, 1, 7)
    assert first.weights.scalars == {"epsilon": 0.5}
    np.testing.assert_array_equal(first.weights.tensors["w"], np.full(100, 7, np.float32))
    second = actor.next(7, 10.0)
    assert second is not None
    assert (second.number, second.weights) == (1, None)


def test_an_actor_waits_for_leave_and_is_woken(rig: Rig) -> None:
    server = rig.server()
    publisher = rig.publisher(server.address)
    publisher.publish(weights(0), Progress(1))
    actor = rig.subscriber(server.address)
    assert collect(actor, -1, 10.0) is not None
    began = time.monotonic()
    assert actor.next(0, 0.3) is None
    assert 0.25 < time.monotonic() - began < 3.0
    woken = threading.Thread(target=lambda: results.append(actor.next(0, 20.0)))
    results: list[object] = []
    woken.start()
    publisher.admit(Progress(2))
    woken.join(20.0)
    assert results
    assert results[0] is not None


def test_who_waits_longest_is_served_first(rig: Rig) -> None:
    server = rig.server()
    publisher = rig.publisher(server.address)
    publisher.publish(weights(0), Progress(0))
    publisher.flush(10.0)
    lease_of: dict[int, int] = {}

    def ask(actor_id: int) -> None:
        lease = rig.subscriber(server.address, actor_id).next(-1, 20.0)
        assert lease is not None
        lease_of[actor_id] = lease.number

    threads = []
    for actor_id in range(3):
        threads.append(threading.Thread(target=ask, args=(actor_id,)))
        threads[-1].start()
        wait_for(lambda n=actor_id + 1: rig.server_metrics.value("weights_subscribers") == n)
    publisher.admit(Progress(3))
    for thread in threads:
        thread.join(20.0)
    assert lease_of == {0: 0, 1: 1, 2: 2}


def test_a_slow_actors_fragment_wakes_those_who_wait_for_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.paramserver.server.TICK_S", 1000.0)
    monkeypatch.setattr("headrace.common.weights.publisher.CHECK_S", 1000.0)
    server = rig.server()
    publisher = rig.publisher(server.address)
    publisher.publish(weights(0), Progress(1))
    slow, fast = rig.subscriber(server.address, 0), rig.subscriber(server.address, 1)
    assert collect(slow, -1, 10.0) is not None
    publisher.admit(Progress(3))
    wait_for(lambda: server.store.ledger.admit_until == 3)
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(fast.next(-1, 20.0)))
    thread.start()
    wait_for(lambda: server._service._leases._line)
    assert slow.next(0, 10.0) is not None
    thread.join(20.0)
    assert results
    assert results[0] is not None


def test_actors_in_line_tell_a_new_server_what_they_have_put(rig: Rig) -> None:
    server = rig.server(settle_s=0.5)
    actors = [rig.subscriber(server.address, i) for i in range(2)]
    actors[0]._received.extend([0, 1])
    actors[1]._received.extend([2, 3])
    results: list[object] = []
    threads = [threading.Thread(target=lambda a=a: results.append(a.next(-1, 3.0))) for a in actors]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(server._service._leases._line) == 2)
    publisher = rig.publisher(server.address)
    known = pb.LedgerState(limit=4)  # it heard of the former server before that gave its four leases
    publisher._ledger.hear(known, Progress(0))
    publisher.publish(weights(0), Progress(4))
    for thread in threads:
        thread.join(20.0)
    assert results == [None, None]
    assert server.store.ledger.begun == 4


def test_a_lease_that_died_with_the_server_is_given_again_by_its_successor(rig: Rig) -> None:
    former = rig.server()
    publisher = rig.publisher(former.address)
    heard: list[LedgerState] = []
    publisher.listen(lambda state, ticket: heard.append(state))
    publisher.publish(weights(0), Progress(1))
    lease = rig.subscriber(former.address, 0).next(-1, 10.0)
    assert lease is not None
    publisher.ask()  # the answer tells the learner who holds it
    wait_for(lambda: any(state.out for state in heard))
    successor = rig.server(settle_s=1000.0)
    heir = rig.publisher(successor.address)
    heir._ledger = publisher._ledger
    heir.publish(weights(0), Progress(1))
    again = rig.subscriber(successor.address, 0).next(-1, 10.0)  # as if the answer had been lost with the server
    assert again is not None
    assert again.number == lease.number


def test_never_more_leaves_than_admitted_with_many_actors(rig: Rig) -> None:
    server = rig.server()
    publisher = rig.publisher(server.address)
    publisher.publish(weights(0), Progress(10))
    leases: list[int] = []

    def run(actor_id: int) -> None:
        actor = rig.subscriber(server.address, actor_id)
        while (lease := collect(actor, -1, 0.5)) is not None:
            leases.append(lease.number)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert sorted(leases) == list(range(10))


@pytest.mark.parametrize("subscribers", [1, 100])
def test_a_version_is_encoded_once_whatever_the_number_of_subscribers(rig: Rig, subscribers: int) -> None:
    server = rig.server()
    publisher = rig.publisher(server.address)
    publisher.publish(weights(3, nbytes=3 * CHUNK_BYTES), PLENTY)
    publisher.flush(20.0)
    assert server.store.current is not None
    for actor_id in range(subscribers):
        lease = rig.subscriber(server.address, actor_id).next(-1, 20.0)
        assert lease is not None
        assert lease.weights is not None
        assert float(lease.weights.tensors["w"].sum()) == 3 * 3 * CHUNK_BYTES / 4
    assert rig.learner_metrics.value("weights_encodes_total") == 1
    assert rig.server_metrics.value("weights_encodes_total") == 0
    sent = subscribers * server.store.current.content.content.total_bytes
    wait_for(lambda: rig.server_metrics.value("weights_bytes_total") >= sent)  # counted when the last chunk was taken
    assert rig.server_metrics.value("weights_bytes_total") == sent


def test_every_stream_is_given_the_very_bytes_the_learner_built(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    server = rig.server()
    publisher = rig.publisher(server.address)
    publisher.publish(weights(3, nbytes=2 * CHUNK_BYTES), PLENTY)
    publisher.flush(20.0)
    assert server.store.current is not None
    held = server.store.current.content.messages
    written: list[int] = []
    broadcast = server._service._broadcast
    original = broadcast.write

    async def spy(context: object, header: object, have: object) -> None:
        class Spy:
            async def write(self, message: bytes) -> None:
                written.append(id(message))
                await context.write(message)  # type: ignore[attr-defined]

        await original(Spy(), header, have)

    monkeypatch.setattr(broadcast, "write", spy)
    for actor_id in range(3):
        assert rig.subscriber(server.address, actor_id).next(-1, 20.0) is not None
    assert [i for i in written if i in {id(m) for m in held}] == [id(m) for m in held] * 3


def test_a_slow_subscriber_skips_versions_and_nothing_queues(rig: Rig) -> None:
    server = rig.server()
    publisher = rig.publisher(server.address)
    publisher.publish(weights(0, nbytes=2 * CHUNK_BYTES), PLENTY)
    channel = grpc.insecure_channel(server.address, CHANNEL_OPTIONS)
    subscribe = channel.unary_stream(f"/{SERVICE}/Subscribe")
    stream = subscribe(pb.SubscribeRequest(run_id=RUN, have_version=-1).SerializeToString(), timeout=60)
    first = pb.Piece.FromString(next(stream)).header.content
    assert first.version == 0
    for version in range(1, 31):
        publisher.publish(weights(version, nbytes=2 * CHUNK_BYTES), PLENTY)
    publisher.flush(20.0)
    seen = []
    for _ in range(first.n_chunks):
        next(stream)
    while not seen or seen[-1] < 30:
        content = pb.Piece.FromString(next(stream)).header.content
        seen.append(content.version)
        for _ in range(content.n_chunks):
            next(stream)
    stream.cancel()
    channel.close()
    assert len(seen) < 10, f"conflated, not queued: {seen}"
    assert rig.server_metrics.value("weights_skipped_versions_total") == 30 - len(seen)


def test_a_follower_sees_the_newest_without_leases(rig: Rig) -> None:
    server = rig.server()
    publisher = rig.publisher(server.address)
    follower = rig.follower(server.address)
    assert follower.newest(-1, 0.2) is None
    publisher.publish(weights(0), Progress(0))
    got = follower.newest(-1, 10.0)
    assert got is not None
    assert got.version == 0
    assert follower.newest(0, 0.2) is None
    assert rig.follower(server.address).newest(0, 0.2) is None, "nothing newer, though it never asked before"
    publisher.publish(weights(1), Progress(0))
    got = follower.newest(0, 10.0)
    assert got is not None
    assert got.version == 1
    assert server.store.ledger.issued_total == 0


def test_lockstep_hands_each_stream_its_own_leases(rig: Rig) -> None:
    server = rig.server(workers=2)
    rig.publisher(server.address).publish(weights(0), Progress(4))
    leases = {}
    for stream in (1, 0):
        actor = rig.subscriber(server.address, stream)
        leases[stream] = [lease.number for _ in range(2) if (lease := collect(actor, -1, 10.0))]
        assert actor.next(-1, 0.0) is None
    assert leases == {0: [0, 2], 1: [1, 3]}
    with pytest.raises(UsageError, match="workers 0 to 1"):
        rig.subscriber(server.address, 2).next(-1, 5.0)


def test_health_is_serving_only_with_weights(rig: Rig) -> None:
    server = rig.server()
    with grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        request = health_pb2.HealthCheckRequest()
        assert check(request, timeout=10).status == health_pb2.HealthCheckResponse.NOT_SERVING
        rig.publisher(server.address).publish(weights(0), PLENTY)
        wait_for(lambda: check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING)


def test_another_run_is_told_so_on_both_sides(rig: Rig) -> None:
    server = rig.server()
    rig.publisher(server.address).publish(weights(0), PLENTY)
    wait_for(lambda: server.ready)
    with pytest.raises(UsageError, match=r"serves run 'run-1', not 'run-2'"):
        rig.subscriber(server.address, run_id="run-2").next(-1, 10.0)
    other = rig.publisher(server.address, run_id="run-2")
    other.publish(weights(0, run_id="run-2"), PLENTY)
    with pytest.raises(UsageError, match="not 'run-2'"):
        other.flush(10.0)


def test_a_replaced_actor_is_fenced(rig: Rig) -> None:
    server = rig.server()
    rig.publisher(server.address).publish(weights(0), PLENTY)
    old, new = rig.subscriber(server.address, 0, 1), rig.subscriber(server.address, 0, 2)
    assert collect(old, -1, 10.0) is not None
    assert new.next(-1, 10.0) is not None
    with pytest.raises(Fenced, match="actor 0"):
        old.next(0, 10.0)


def test_weights_over_the_cap_are_refused_on_each_side(rig: Rig) -> None:
    server = rig.server(max_weights_bytes=1000)
    small = rig.publisher(server.address, max_weights_bytes=100)
    with pytest.raises(Rejected, match="over the cap of 100 bytes"):
        small.publish(weights(0), PLENTY)
    large = rig.publisher(server.address)
    large.publish(weights(0, nbytes=4000), PLENTY)
    with pytest.raises(TransportError, match="over the cap of 1000 bytes"):
        large.flush(10.0)
    assert not server.ready


def test_too_many_subscribers_are_asked_to_come_again(rig: Rig) -> None:
    server = rig.server(max_subscribers=1)
    publisher = rig.publisher(server.address)
    publisher.publish(weights(0), Progress(0))
    publisher.flush(10.0)
    waiting = rig.subscriber(server.address, 0)

    def wait_until_closed() -> None:
        with pytest.raises(Closed):
            waiting.next(-1, 30.0)

    thread = threading.Thread(target=wait_until_closed)
    thread.start()
    wait_for(lambda: rig.server_metrics.value("weights_subscribers") == 1)
    publisher.admit(Progress(0))
    assert rig.subscriber(server.address, 1).next(-1, 1.0) is None
    waiting.close()
    thread.join(20.0)
    publisher.admit(Progress(1))
    assert rig.subscriber(server.address, 2).next(-1, 20.0) is not None


def test_stopping_sends_waiters_away_at_once(rig: Rig) -> None:
    server = rig.server()
    rig.publisher(server.address).publish(weights(0), Progress(0))
    wait_for(lambda: server.ready)
    actor = rig.subscriber(server.address)

    def wait_until_closed() -> None:
        with pytest.raises(Closed):
            actor.next(-1, 25.0)

    thread = threading.Thread(target=wait_until_closed)
    thread.start()
    wait_for(lambda: rig.server_metrics.value("weights_subscribers") == 1)
    began = time.monotonic()
    server.stop(grace_s=20.0)
    assert time.monotonic() - began < 10.0
    actor.close()
    thread.join(20.0)
    assert not thread.is_alive()
