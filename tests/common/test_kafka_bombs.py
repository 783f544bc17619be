"""A hundred batches that unpack to gigabytes, while a learner reads: the broker refuses them and serves everybody else.

The guard is the topic's compression.type=uncompressed (kafka_topics.INSISTED): the broker unpacks, so that the learner
never does. Its Java runs out of memory over it, which must not end it.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.common.transport import Limits
from headrace.launch import broker
from tests.broker import OwnBroker

from . import bombs, independent
from .kafka_streams import Stream, put, receive, seqs, wait_for

BOMBS = 100
MESSAGE_TOO_LARGE, UNKNOWN_SERVER_ERROR = 10, -1


@pytest.fixture
def small_broker(tmp_path: Path, kafka_jars: None) -> Iterator[OwnBroker]:
    made = OwnBroker(tmp_path / "broker")
    yield made
    made.kill()


def throw(server: str, topic: str, codes: Counter[int]) -> None:
    packed = [
        bombs.bomb(codec, size) for codec in (bombs.LZ4, bombs.ZSTD) for size in (30 << 20, (2 << 30) - (1 << 20))
    ]
    host, port = server.split(":")
    for k in range(BOMBS):
        with socket.create_connection((host, int(port)), timeout=30) as link:
            codes[bombs.send(link, topic, packed[k % len(packed)])] += 1


def test_a_hundred_bombs_during_live_reading_end_nothing(small_broker: OwnBroker, client: str) -> None:
    server = small_broker.info.bootstrap
    stream = Stream(server, client=client)
    source, sink = stream.source(limits=Limits()), stream.sink(limits=Limits())
    codes: Counter[int] = Counter()
    thrower = threading.Thread(target=throw, args=(server, stream.topic, codes))
    thrower.start()
    count = 0
    while thrower.is_alive() or count < 100:
        put(sink, count)
        assert seqs(receive(source, 1)) == [count]
        count += 1
    thrower.join()
    assert codes.keys() <= {MESSAGE_TOO_LARGE, UNKNOWN_SERVER_ERROR}, "one was stored"
    assert codes.total() == BOMBS
    assert min(codes.values()) >= BOMBS // 4, "small ones by their size, large ones by what they did to its memory"

    assert broker.status(small_broker.data_dir) is not None, "the broker is gone"
    again = Stream(server, client=client)  # topics are made, and read and written
    other, writer = again.source(), again.sink()
    put(writer, 7)
    assert seqs(receive(other, 1)) == [7]
    assert len(independent.consume(server, stream.topic)) == count
    assert stream.metrics.value("learner_rejected_total", reason="crc") == 0
    again.close()
    stream.close()


def test_the_bombs_are_batches_that_a_broker_would_store(small_broker: OwnBroker) -> None:
    """The same ones, small: else the test above proved nothing. As they were meant where a topic keeps compression."""
    server = small_broker.info.bootstrap
    stream = Stream(server)
    stream.source().close()
    host, port = server.split(":")
    for kept in ("uncompressed", "producer"):
        independent.alter_topic(server, stream.topic, {"compression.type": kept})
        for codec in (bombs.LZ4, bombs.ZSTD):
            with socket.create_connection((host, int(port)), timeout=30) as link:
                assert bombs.send(link, stream.topic, bombs.bomb(codec, 256 << 10)) == 0

    def stored() -> bool:
        """This is what it would come to; a broker's log follows a new setting in its own time."""
        with socket.create_connection((host, int(port)), timeout=30) as link:
            return bombs.send(link, stream.topic, bombs.bomb(bombs.ZSTD, 64 << 20)) == 0

    wait_for(stored)
    sizes = [len(m.value()) for m in independent.consume(server, stream.topic)]
    assert sizes == [256 << 10] * 4 + [64 << 20]
    stream.close()
