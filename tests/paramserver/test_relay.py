"""Relays: weights from a parent to many, leases from the root, and what happens when one of them is away."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import grpc
import pytest

from headrace.common.errors import Finished, TransportError, UsageError
from headrace.common.waiting import Waiting
from headrace.common.weights.base import Progress
from headrace.common.weights.client import SERVICE, Client
from headrace.common.weights.join import join
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver import upstream
from tests.ports import free_port

from .servers import PLENTY, RUN, Rig, collect, token_files, wait_for, weights

RELAYS = "relay-secret"


def patience(timeout_s: float = 20.0) -> Waiting:
    return Waiting("test", timeout_s, say=lambda line: None)


@pytest.mark.parametrize("hops", [1, 2])
def test_an_actor_below_relays_collects_as_at_the_root(rig: Rig, hops: int) -> None:
    root = rig.server()
    publisher = rig.publisher(root.address)
    publisher.publish(weights(1, nbytes=3 << 20), Progress(6))
    parent = root
    for _ in range(hops):
        parent = rig.relay(parent.address)
    wait_for(lambda: parent.ready)
    actors = [rig.subscriber(parent.address, actor_id) for actor_id in range(3)]
    leases = [actor.next(-1, 10.0) for actor in actors]
    assert sorted(lease.number for lease in leases if lease) == [0, 1, 2]
    assert all(lease is not None and lease.weights is not None and lease.weights.version == 1 for lease in leases)
    for actor in actors:
        actor.delivered()
    numbers = [lease.number for actor in actors if (lease := collect(actor, 1, 5.0))]
    assert numbers == [3, 4, 5]
    assert [actor.next(1, 0.1) for actor in actors] == [None] * 3, "the bound is the root's"
    publisher.publish(weights(2), Progress(7))
    lease = actors[1].next(1, 5.0)
    assert lease is not None
    assert lease.weights is not None
    assert (lease.number, lease.weights.version) == (6, 2)


def test_the_root_sends_weights_to_its_children_only(rig: Rig) -> None:
    root = rig.server()
    publisher = rig.publisher(root.address)
    publisher.publish(weights(1, nbytes=1 << 20), PLENTY)
    relay = rig.relay(root.address)
    wait_for(lambda: relay.ready)
    followers = [rig.follower(relay.address) for _ in range(8)]
    for follower in followers:
        got = follower.newest(-1, 10.0)
        assert got is not None
        assert got.version == 1
    assert root.store.current is not None
    size = root.store.current.content.content.total_bytes
    assert rig.server_metrics.value("weights_bytes_total") == size
    assert rig.relay_metrics.value("weights_bytes_total") == 8 * size


def test_a_lease_waits_at_the_relay_for_the_version_that_it_names(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow weights come down, nobody collects with older ones than the root knew of when it gave the lease."""
    take = upstream.Upstream._take
    root = rig.server()
    publisher = rig.publisher(root.address)
    publisher.publish(weights(1), Progress(1))
    relay = rig.relay(root.address)
    actor = rig.subscriber(relay.address)
    assert collect(actor, -1, 10.0) is not None

    held: list[object] = []
    monkeypatch.setattr(upstream.Upstream, "_take", lambda self, blob: held.append((self, blob)))
    publisher.publish(weights(2), Progress(3))
    wait_for(lambda: held)
    assert actor.next(1, 1.0) is None
    assert root.store.ledger.begun == 2, "it was given, and is to be given again"
    relayed, blob = held[0]  # type: ignore[misc]
    take(relayed, blob)
    lease = actor.next(1, 10.0)
    assert lease is not None
    assert lease.number == 1
    assert lease.weights is not None
    assert lease.weights.version == 2
    assert root.store.ledger.begun == 2


def test_hearts_beat_through_a_relay(rig: Rig) -> None:
    root = rig.server(lost_after_s=1.6)
    rig.publisher(root.address).publish(weights(1), Progress(1))
    relay = rig.relay(root.address)
    actor = rig.subscriber(relay.address)
    lease = actor.next(-1, 10.0)
    assert lease is not None
    until_s = time.monotonic() + 4
    while time.monotonic() < until_s:
        assert root.store.ledger.expired_total == 0
        time.sleep(0.05)
    actor.close()  # takes its leave, with the lease in its hands
    wait_for(lambda: root.store.ledger.expired_total == 1)


def test_numbers_are_the_roots(rig: Rig) -> None:
    root = rig.server()
    rig.publisher(root.address).publish(weights(1), PLENTY)
    relays = [rig.relay(root.address) for _ in range(2)]
    for relay in relays:
        wait_for(lambda relay=relay: relay.ready)
    given = [join(Client(relay.address, "", None), RUN, 7 + i, 2, patience()) for i, relay in enumerate(relays)]
    assert sorted([*given[0], *given[1]]) == [0, 1, 2, 3]


def test_who_lost_its_relay_turns_to_another_parent_with_its_lease(rig: Rig) -> None:
    root = rig.server()
    publisher = rig.publisher(root.address)
    publisher.publish(weights(1), Progress(2))
    relay = rig.relay(root.address)
    wait_for(lambda: relay.ready)
    actor = rig.subscriber(f"{relay.address},{root.address}", away=patience())
    first = collect(actor, -1, 10.0)
    assert first is not None
    relay.stop(0.0)
    began_s = time.monotonic()
    second = next(filter(None, (actor.next(1, 1.0) for _ in range(20))))
    assert time.monotonic() - began_s < 10
    assert (first.number, second.number) == (0, 1)
    assert root.store.ledger.issued_total == 2


def test_a_relay_turns_to_another_parent_and_comes_back_after_the_roots_death(rig: Rig) -> None:
    port = free_port()
    root = rig.server(f"127.0.0.1:{port}")
    publisher = rig.publisher(root.address)
    publisher.publish(weights(1), PLENTY)
    relay = rig.relay(f"127.0.0.1:{free_port()},{root.address}")
    actor = rig.subscriber(relay.address, away=patience())
    assert collect(actor, -1, 10.0) is not None
    root.stop(0.0)
    assert actor.next(1, 0.5) is None
    again = rig.server(f"127.0.0.1:{port}")
    publisher.publish(weights(2), PLENTY)
    lease = next(filter(None, (actor.next(1, 1.0) for _ in range(30))))
    assert lease.weights is not None
    assert lease.weights.version == 2
    assert again.store.ledger.issued_total == 1


def test_a_learner_that_comes_back_is_followed_and_an_older_version_is_not(rig: Rig) -> None:
    root = rig.server()
    rig.publisher(root.address).publish(weights(9), PLENTY)
    relay = rig.relay(root.address)
    follower = rig.follower(relay.address)
    assert follower.newest(-1, 10.0) is not None
    rig.publisher(root.address).publish(weights(4, epoch=2), PLENTY)
    got = follower.newest(9, 10.0)
    assert got is not None
    assert (got.learner_epoch, got.version) == (2, 4)


def test_the_end_of_the_run_is_told(rig: Rig) -> None:
    root = rig.server()
    publisher = rig.publisher(root.address)
    publisher.publish(weights(1), Progress(1))
    relay = rig.relay(root.address, farewell_s=0.5)
    actor = rig.subscriber(relay.address)
    assert collect(actor, -1, 10.0) is not None
    publisher.admit(Progress(1, finished=True))
    with pytest.raises(Finished):
        wait_for(lambda: actor.next(1, 1.0))
    wait_for(lambda: relay.all_went_home)


# --- who may do what -------------------------------------------------------------------------------------------------


def test_relays_have_a_token_of_their_own(rig: Rig, tmp_path: Path) -> None:
    files = token_files(tmp_path)
    relays = tmp_path / "relay.token"
    relays.write_text(f"{RELAYS}\n")
    root = rig.server(relay_token_file=relays, **files)
    rig.publisher(root.address, token="learner-secret").publish(weights(1), PLENTY)
    of_actors = rig.relay(root.address, token="actor-secret")
    with pytest.raises(UsageError, match=r"the token is missing or does not allow this call.*weights.relay_token_file"):
        wait_for(lambda: of_actors.raise_if_failed())
    relay = rig.relay(root.address, token=RELAYS, relay_token_file=relays, token_file=files["token_file"])
    wait_for(lambda: relay.ready)
    assert collect(rig.subscriber(relay.address, token="actor-secret"), -1, 10.0) is not None
    with pytest.raises(UsageError, match="the token is missing"):
        rig.subscriber(relay.address, token="nobody").next(-1, 5.0)


def test_another_run_is_refused_and_nobody_publishes_at_a_relay(rig: Rig) -> None:
    root = rig.server()
    rig.publisher(root.address).publish(weights(1), PLENTY)
    stranger = rig.relay(root.address, run_id="run-2")
    with pytest.raises(UsageError, match=f"relay: parameter server {root.address}: .*serves run 'run-1', not 'run-2'"):
        wait_for(lambda: stranger.raise_if_failed())
    relay = rig.relay(root.address)
    publisher = rig.publisher(relay.address)
    publisher.publish(weights(2), PLENTY)
    with pytest.raises((UsageError, TransportError), match=f"a relay of {root.address}; learners publish at the root"):
        publisher.flush(10.0)


def test_what_a_relay_says_is_bounded(rig: Rig) -> None:
    root = rig.server(max_subscribers=4)
    rig.publisher(root.address).publish(weights(1), Progress(0))
    asks = [pb.RelayAsk(id=i, next=pb.NextRequest(run_id=RUN, actor_id=i, timeout_ms=3000)) for i in range(1, 7)]
    more = [pb.RelayAsk(id=7), pb.RelayAsk(id=8, next=pb.NextRequest(run_id="other"))]
    sent = [pb.RelayAsks(ask=asks).SerializeToString()]
    with grpc.insecure_channel(root.address) as channel:
        done = threading.Event()

        def messages():  # type: ignore[no-untyped-def]
            yield from sent
            yield from [pb.RelayAsks(ask=more).SerializeToString()] if not done.wait(4.0) else []

        call = channel.stream_stream(f"/{SERVICE}/Relay")(messages(), timeout=20)
        codes = {}
        for message in call:
            for answer in pb.RelayAnswers.FromString(message).answer:
                codes[answer.id] = answer.code
                if answer.id == 5:
                    assert "4 questions of this relay are open" in answer.details
            if len(codes) == 8:
                break
        assert [codes[i] for i in range(1, 9)] == [0, 0, 0, 0, 14, 14, 3, 9]
        done.set()
        call.cancel()
        garbage = channel.stream_stream(f"/{SERVICE}/Relay")(iter([b"\xff\xff"]), timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            list(garbage)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert collect(rig.subscriber(root.address, 99), -1, 0.2) is None
