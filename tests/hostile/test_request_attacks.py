"""What a hostile caller of the parameter server may do beside wrong numbers: floods, bombs, greed, silence, forgery.

The attacker has the actors' token unless a test says otherwise, and comes from another address than the honest actors.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import grpc
import pytest

from headrace.common.wire import paramserver_pb2 as pp

from . import books
from .client import Client, Detour, life
from .conftest import Target
from .roles import PROMISE_S, Run

pytestmark = pytest.mark.timeout(300)
BOMB = 100_000
OVERDUE_S = 10.0  # the least time after which a lease that is held is given up


@pytest.fixture
def run(target: Target) -> Run:
    """The run under attack, undisturbed again."""
    return target.undisturbed()


@pytest.fixture
def client(run: Run) -> Iterator[Client]:
    """Somebody on another machine."""
    detour = Detour(run.address)
    one = Client(detour.address, run.id, run.token)
    yield one
    one.close()
    detour.close()


@pytest.mark.parametrize("number", [0, -1, 2**62, 2**63 - 1], ids=str)
@pytest.mark.parametrize("name", ["Next", "Heartbeat"])
def test_a_hundred_thousand_numbers_received(run: Run, client: Client, name: str, number: int) -> None:
    message = pp.NextRequest if name == "Next" else pp.HeartbeatRequest
    for _ in range(5):
        incarnation = life()
        request = message(run_id=run.id, actor_id=71, incarnation=incarnation, received=[number] * BOMB)
        client.try_call(name, request)
        client.leave(71, incarnation)
    run.goes_on(f"{name}.received was {BOMB} times {number}", versions=2)


@pytest.mark.parametrize("first", [10**6, 2**62], ids=str)
@pytest.mark.parametrize("name", ["Next", "Heartbeat"])
def test_hundreds_of_invented_leases_that_were_put(run: Run, client: Client, name: str, first: int) -> None:
    """16 others in every call: each would make the run wait for a fragment that nobody has."""
    message = pp.NextRequest if name == "Next" else pp.HeartbeatRequest
    for i in range(40):
        incarnation, received = life(), range(first + 16 * i, first + 16 * (i + 1))
        client.join(incarnation)
        client.try_call(name, message(run_id=run.id, actor_id=72, incarnation=incarnation, received=received))
        client.leave(72, incarnation)
    run.goes_on(f"{name}.received were 640 numbers from {first} on", versions=8)


@pytest.fixture(params=["127.0.0.2", "127.0.0.1"], ids=["another machine", "the same machine"])
def neighbour(request: pytest.FixtureRequest, run: Run) -> Iterator[Client]:
    """Somebody on another machine, and on that of the honest actors."""
    detour = Detour(run.address, request.param)
    one = Client(detour.address, run.id, run.token)
    yield one
    one.close()
    detour.close()


def longest_stall(run: Run, rounds: Iterator[int]) -> tuple[float, int]:
    """The longest time without a version while the rounds are going on, and how many leases they took."""
    taken, version, since, longest = 0, run.version, time.monotonic(), 0.0
    for granted in rounds:
        taken += granted
        now = time.monotonic()
        if run.version > version:
            version, since = run.version, now
        longest = max(longest, now - since)
    return longest, taken


CREW = 20  # calls of one attacker that wait at the same time


def wait_for_leases(
    client: Client, held: dict[int, int], lies: bool, for_s: float, beats: bool = True
) -> Iterator[int]:
    """Wait in line for leases as honest actors do, keep each (``lies``: name it as put, and wait for more), and look
    alive if ``beats``. Yields five times a second how many leases came."""
    ends, came = time.monotonic() + for_s, SimpleQueue[int]()

    def ask(who: list[int]) -> None:
        got: dict[int, list[int]] = {actor_id: [] for actor_id in who}
        while time.monotonic() < ends:
            for actor_id in who:
                with contextlib.suppress(grpc.RpcError):
                    if lies or not got[actor_id]:
                        header = client.next(actor_id, held[actor_id], got[actor_id][-16:], wait_ms=500)
                        if header.granted:
                            got[actor_id].append(header.lease)
                            came.put(header.lease)
                    else:
                        time.sleep(0.05)
                    if beats:
                        client.beat(actor_id, held[actor_id])

    numbers = list(held)
    threads = [threading.Thread(target=ask, args=(numbers[i::CREW],)) for i in range(min(CREW, len(numbers)))]
    for thread in threads:
        thread.start()
    while time.monotonic() < ends:
        yield sum(1 for _ in range(came.qsize()) if came.get() >= 0)
        time.sleep(0.2)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("beats", "lies"), [(True, False), (False, False), (True, True)], ids=["beat", "mute", "lie"])
def test_two_hundred_invented_actors_that_never_deliver(run: Run, neighbour: Client, beats: bool, lies: bool) -> None:
    stall, taken = longest_stall(
        run, wait_for_leases(neighbour, {100 + i: life() for i in range(200)}, lies, 9.0, beats)
    )
    assert taken > 0, "this attack took no lease at all"
    assert stall < PROMISE_S + run.slack_s, f"{stall:.1f} s without a version, {taken} leases taken"
    run.goes_on(f"200 actors that took {taken} leases", versions=2)


@pytest.mark.parametrize("lies", [False, True], ids=["beat", "lie"])
def test_a_few_greedy_actors_that_never_deliver(run: Run, neighbour: Client, lies: bool) -> None:
    """The first of them may be waited for until their leases are overdue; those that come after them, not."""
    for _ in wait_for_leases(neighbour, {400 + i: life() for i in range(6)}, lies, OVERDUE_S + 2.0):
        pass
    allowed_s = PROMISE_S + run.slack_s
    greedy = wait_for_leases(neighbour, {500 + i: life() for i in range(6)}, lies, allowed_s + 1.0)
    stall, taken = longest_stall(run, greedy)
    assert taken > 0, "this attack took no lease at all"
    assert stall < allowed_s, f"{stall:.1f} s without a version, {taken} leases taken"
    run.goes_on(f"greedy actors that took {taken} leases", versions=2)


def test_a_second_life_for_every_honest_actor_from_another_machine(run: Run, client: Client) -> None:
    for _ in range(20):
        for actor_id in range(run.actors):
            request = pp.NextRequest(run_id=run.id, actor_id=actor_id, incarnation=life(), timeout_ms=10)
            client.try_call("Next", request)
            client.beat(actor_id, life())
            client.leave(actor_id, life())
    run.goes_on("second lives of the honest actors", versions=3)


def test_foreign_run_ids(run: Run, client: Client) -> None:
    for run_id in ("", "nobody", run.id + "x", run.id.upper() + "?", "\0" * 1000, "é" * 100_000):
        for name in ("Join", "Next", "Heartbeat", "Subscribe"):
            request = getattr(pp, f"{name}Request")(run_id=run_id)
            status, said = client.try_call(name, request)
            assert status == "FAILED_PRECONDITION", f"{name} of run {run_id[:20]!r}: {status} {said[:300]}"
            assert len(said) < 1000, f"{name} answers with {len(said)} characters"
    run.goes_on("foreign run ids")


def test_oversize_messages(run: Run, client: Client) -> None:
    for size in (5 << 20, 80 << 20):
        for name in ("Join", "Next", "Heartbeat", "Subscribe"):
            status, _ = client.try_call(name, getattr(pp, f"{name}Request")(run_id="x" * size), 20.0)
            assert status != "OK"
    run.goes_on("oversize messages", versions=2)


def lets_others_in(run: Run) -> None:
    late = Client(run.address, run.id, run.token)
    assert late.join(life()), "nobody else is let in"
    late.close()


def test_half_open_connections(run: Run) -> None:
    host, port = run.address.split(":")
    opened = [socket.create_connection((host, int(port)), 5.0) for _ in range(300)]
    for i, s in enumerate(opened):
        s.sendall((b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n", b"\0\xff\xff" * 30)[i % 4])
    run.goes_on("300 half-open connections", versions=3)
    lets_others_in(run)
    for s in opened:
        s.close()


def test_subscribers_that_never_read(run: Run, client: Client) -> None:
    calls = [
        client.stub.Subscribe(
            pp.SubscribeRequest(run_id=run.id, have_epoch=-1, have_version=-1), metadata=client.metadata, timeout=60
        )
        for _ in range(100)
    ]
    run.goes_on("100 subscribers that never read", versions=20)
    lets_others_in(run)
    for call in calls:
        call.cancel()


def test_a_hundred_actors_that_wait_as_long_as_they_can(run: Run, client: Client) -> None:
    """Calls that block in the server must not use up what answers the honest ones."""
    calls = []
    for i in range(100):
        request = pp.NextRequest(run_id="nobody" if i % 2 else run.id, actor_id=1000 + i, incarnation=life())
        request.timeout_ms, request.have_version = 2**32 - 1, 2**62
        calls.append(client.stub.Next(request, metadata=client.metadata))
    run.goes_on("100 calls that wait for 50 days", versions=2)
    lets_others_in(run)
    for call in calls:
        call.cancel()


def header(run: Run) -> pp.PublishPiece:
    """A publication that claims to be newer than anything."""
    piece = pp.PublishPiece()
    piece.header.run_id, piece.header.writer = run.id, life()
    piece.header.content.learner_epoch, piece.header.content.version = run.epochs + 1, run.version + 1
    piece.header.content.total_bytes, piece.header.content.n_chunks = 4, 1
    piece.header.content.digest = bytes(16)
    return piece


ORDERS: dict[str, Callable[[Run], list[pp.PublishPiece]]] = {
    "nothing": lambda run: [],
    "empty": lambda run: [pp.PublishPiece()],
    "chunk first": lambda run: [pp.PublishPiece(chunk=b"1234"), header(run)],
    "two headers": lambda run: [header(run), header(run)],
    "no chunks": lambda run: [header(run)],
    "too many": lambda run: [header(run), *[pp.PublishPiece(chunk=bytes(1 << 20))] * 50],
    "wrong digest": lambda run: [header(run), pp.PublishPiece(chunk=b"1234")],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("right", [False, True], ids=["no token", "the learner's token"])
def test_pieces_of_a_publication_in_the_wrong_order(run: Run, order: str, right: bool) -> None:
    """Even with the token nothing of it may become current: sizes or digest are wrong."""
    one = Client(run.address, run.id, (run.root / "publish-token").read_text().strip() if right else None)
    status, said = one.try_call("Publish", iter(ORDERS[order](run)))
    one.close()
    expected = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "ABORTED") if right else ("UNAUTHENTICATED",)
    assert status in expected, f"{status}: {said}"
    run.goes_on(f"a publication with {order}", versions=2)


def test_a_publication_that_stops_half_way(run: Run, client: Client) -> None:
    def pieces() -> Iterator[pp.PublishPiece]:
        yield header(run)
        time.sleep(15.0)

    call = client.stub.Publish.future(pieces(), metadata=client.metadata, timeout=14.0)
    run.goes_on("a publication that hangs", versions=5)
    call.cancel()


def test_the_books_are_plausible_at_the_end(run: Run) -> None:
    run.finish()
    books.check(run)
