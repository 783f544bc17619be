"""Records as they lie in the log: other clients read and write them, and bad ones cost nothing but themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.common import codec
from headrace.common.transport.kafka_dead import LINES
from headrace.common.types import Trajectory

from . import independent
from .kafka_streams import LIMITS, Stream, put, receive, seqs, wait_for
from .samples import assert_same, trajectory


def test_a_dead_letter_says_where_it_comes_from(stream: Stream) -> None:
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    independent.produce(stream.server, stream.topic, [b"poison"], key=b"an actor")
    put(sink, 1)
    assert seqs(receive(source, 2)) == [0, 1]
    letters: list[Any] = []
    wait_for(lambda: letters.extend(independent.consume(stream.server, f"{stream.topic}.dead")) or bool(letters))
    (letter,) = letters
    headers = {name: value.decode() for name, value in letter.headers()}
    detail = headers.pop("detail")
    assert headers == {"reason": "malformed", "topic": stream.topic, "partition": "0", "offset": "1"}
    assert "shorter than the prefix" in detail
    assert (letter.key(), letter.value()) == (b"an actor", b"poison")


def test_records_without_key_or_value_are_bad_records_like_others(stream: Stream) -> None:
    source, sink = stream.source(), stream.sink()
    independent.produce(stream.server, stream.topic, [b"poison", None], key=None)
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]
    assert stream.metrics.value("learner_rejected_total", reason="malformed") == 2


def test_a_flood_of_bad_records_is_kept_whole_and_logged_in_part(
    stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    source, sink, flood = stream.source(), stream.sink(), 3 * LINES
    independent.produce(stream.server, stream.topic, [b"poison"] * flood)
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]
    wait_for(lambda: len(independent.consume(stream.server, f"{stream.topic}.dead")) == flood)
    assert sum(" rejected (" in line for line in caplog.messages) == LINES
    assert "further rejected records are only counted, not logged" in caplog.messages[-1]


def squeezable(seq: int) -> Trajectory:
    made = trajectory(seq, T=200)
    return replace(made, arrays={**made.arrays, "obs": np.full_like(made.arrays["obs"], seq)})


@pytest.mark.parametrize("compression", ["lz4", "none"])
def test_the_codec_compresses_and_kafka_does_not(real_kafka: str, client: str, compression: str) -> None:
    stream = Stream(real_kafka, options=f"&compression={compression}", client=client)
    source, sink = stream.source(), stream.sink()
    sent = [squeezable(seq) for seq in range(5)]
    for made in sent:
        sink.put(made, timeout_s=10)
    sink.flush(10)
    got = independent.consume(stream.server, stream.topic)
    packed = compression == "lz4"
    assert [m.value() for m in got] == [codec.encode(made, LIMITS.record_bytes, packed) for made in sent]
    assert all((len(m.value()) < made.nbytes) is packed for m, made in zip(got, sent, strict=True))
    assert [m.key() for m in got] == [b"0"] * 5
    received = receive(source, 5)
    for r, made in zip(received, sent, strict=True):
        assert_same(r.trajectory, made)
        assert r.nbytes >= made.nbytes, "what waits is counted as it lies in memory"
    stream.close()


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_batches_of_another_client_are_read(stream: Stream, compression: str) -> None:
    """Compressed ones too: the broker unpacks them."""
    source = stream.source()
    records: list[bytes | None] = [codec.encode(squeezable(seq), LIMITS.record_bytes) for seq in range(10)]
    settings = {"compression.type": compression, "linger.ms": 50}
    independent.produce(stream.server, stream.topic, records, **settings)
    assert seqs(receive(source, 10)) == list(range(10))


def test_the_same_key_goes_to_the_same_partition_whatever_the_client(real_kafka: str) -> None:
    used: dict[str, list[int]] = {}
    for client in ("kafka-python", "confluent"):
        stream = Stream(real_kafka, partitions=5, client=client)
        source = stream.source()
        for key in range(8):
            put(stream.sink(key=f"actor-{key}"), key)
        used[client] = [r.partition for r in sorted(receive(source, 8), key=lambda r: r.trajectory.seq)]
        stream.close()
    assert used["kafka-python"] == used["confluent"]
    assert len(set(used["confluent"])) > 1
