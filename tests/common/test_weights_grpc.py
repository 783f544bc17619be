"""The clients against servers that misbehave: damaged chunks, versions that go back, silence."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from headrace.common.errors import Closed, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.types import Weights
from headrace.common.weights.base import Progress
from headrace.common.weights.chunks import CHUNK_BYTES, Blob, pack
from headrace.common.weights.client import LONGEST_PAUSE_S, SERVICE, Backoff
from headrace.common.weights.grpc import GrpcPublisher, GrpcSubscriber
from headrace.common.wire import paramserver_pb2 as pb

Answer = Callable[[pb.NextRequest], Iterator[bytes]]


def blob(version: int, run_id: str = "run-1") -> Blob:
    return pack(Weights(run_id, 1, version, {"w": np.zeros(CHUNK_BYTES // 2, np.float32)}), 64 << 20)


def reply(made: Blob, messages: tuple[bytes, ...] | None = None) -> list[bytes]:
    header = pb.Header(granted=True, lease=3, learner_epoch=made.content.learner_epoch, content=made.content)
    return [pb.Piece(header=header).SerializeToString(), *(made.messages if messages is None else messages)]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts a server whose Next answers with whatever the given function yields."""
    servers = []

    def start(answer: Answer) -> str:
        def handle(message: bytes, context: Any) -> Iterator[bytes]:
            yield from answer(pb.NextRequest.FromString(message))

        handlers = {"Next": grpc.unary_stream_rpc_method_handler(handle)}
        pool = ThreadPoolExecutor(4)
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append((server, pool))
        return f"127.0.0.1:{port}"

    yield start
    for server, pool in servers:
        server.stop(0).wait(10)
        pool.shutdown()


def subscriber(address: str, **options: Any) -> GrpcSubscriber:
    return GrpcSubscriber(address, "run-1", 4, 99, "", Metrics("actor"), **options)


def test_a_damaged_answer_is_not_taken_over_and_the_lease_is_asked_for_again(serve: Callable[[Answer], str]) -> None:
    asked: list[pb.NextRequest] = []
    damaged = bytearray(blob(1).messages[1])
    damaged[500] ^= 4

    def answer(request: pb.NextRequest) -> Iterator[bytes]:
        asked.append(request)
        bad = (blob(1).messages[0], bytes(damaged), *blob(1).messages[2:])
        yield from reply(blob(1), bad if len(asked) == 1 else None)

    actor = subscriber(serve(answer))
    lease = actor.next(-1, 20.0)
    actor.close()
    assert lease is not None
    assert lease.weights is not None
    assert lease.weights.version == 1
    assert [list(r.received) for r in asked] == [[], []], "the first was not confirmed"
    assert actor._metrics.value("weights_refused_total") == 1


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        (reply(blob(1), blob(1).messages[:-1]), "message in place of a chunk"),
        (reply(blob(1, "run-2")), "run 'run-2'"),
        (reply(blob(1), blob(2).messages), "digest"),
        ([b"\xff\xff\xff"], "another format"),
    ],
)
def test_an_answer_that_stays_wrong_ends_the_actor(
    serve: Callable[[Answer], str], messages: list[bytes], match: str
) -> None:
    actor = subscriber(serve(lambda request: iter(messages)))
    with pytest.raises(TransportError, match=match):
        actor.next(-1, 30.0)
    actor.close()


def test_a_version_that_goes_back_is_refused(serve: Callable[[Answer], str]) -> None:
    versions = iter([7, 6, 6, 6])
    actor = subscriber(serve(lambda request: iter(reply(blob(next(versions))))))
    assert actor.next(-1, 20.0) is not None
    with pytest.raises(TransportError, match="went back"):
        actor.next(7, 30.0)
    actor.close()


def test_another_service_is_named_as_such(serve: Callable[[Answer], str]) -> None:
    publisher = GrpcPublisher(serve(lambda request: iter(())), "run-1", "", Metrics("learner"))
    publisher.publish(Weights("run-1", 1, 0, {}), Progress(1))
    with pytest.raises(UsageError, match="another service"):
        publisher.flush(20.0)
    publisher.close()


def test_a_server_that_accepts_and_says_nothing_costs_the_timeout_and_no_more() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        actor = subscriber(f"127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert actor.next(-1, 0.5) is None
        assert time.monotonic() - began < 2.5
        actor.close()


def test_closing_ends_a_waiting_call(serve: Callable[[Answer], str]) -> None:
    waits, release = threading.Event(), threading.Event()

    def answer(request: pb.NextRequest) -> Iterator[bytes]:
        waits.set()
        release.wait(30.0)
        yield b""

    actor = subscriber(serve(answer))
    ended: list[type[BaseException]] = []

    def ask() -> None:
        try:
            actor.next(-1, 30.0)
        except Closed:
            ended.append(Closed)

    thread = threading.Thread(target=ask)
    thread.start()
    assert waits.wait(20.0)
    actor.close()
    thread.join(10.0)
    release.set()
    assert ended == [Closed]
    with pytest.raises(Closed):
        actor.next(-1, 1.0)


def test_closing_a_publisher_ends_its_call_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, release, said = threading.Event(), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", said.append)

    def publish(pieces: Iterator[bytes], context: Any) -> bytes:
        first, *_ = pieces
        content = pb.PublishPiece.FromString(first).header.content
        return pb.ServerState(learner_epoch=content.learner_epoch, version=content.version).SerializeToString()

    def admit(message: bytes, context: Any) -> bytes:
        asked.set()
        release.wait(30)
        return b""

    handlers = {
        "Publish": grpc.stream_unary_rpc_method_handler(publish),
        "Admit": grpc.unary_unary_rpc_method_handler(admit),
    }
    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    publisher = GrpcPublisher(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", "run-1", "", Metrics("learner"))
    server.start()
    try:
        publisher.publish(Weights("run-1", 1, 0, {"w": np.zeros(4, np.float32)}), Progress(1))
        publisher.flush(10.0)
        assert asked.wait(10.0)
        began = time.monotonic()
        publisher.close()
        assert time.monotonic() - began < 4.0
        assert not publisher._worker.is_alive()
        assert not said
    finally:
        release.set()
        server.stop(0).wait(10)
        pool.shutdown()


def test_pauses_grow_are_random_and_bounded() -> None:
    longest = []
    for failures in (1, 3, 20):
        pauses = []
        for _ in range(200):
            backoff = Backoff()
            for _ in range(failures):
                backoff.failed()
            pauses.append(backoff._not_before_s - time.monotonic())
        assert len({round(p, 4) for p in pauses}) > 20
        longest.append(max(pauses))
    assert longest[0] <= 0.2 < longest[1] <= 0.8 < longest[2] <= LONGEST_PAUSE_S


def test_the_clients_load_neither_torch_nor_the_server() -> None:
    look = (
        "import sys, headrace.common.weights.grpc\n"
        "bad = [m for m in sys.modules if m.split('.')[0] == 'torch' or m.startswith('headrace.paramserver')]\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", look], timeout=60).returncode == 0
