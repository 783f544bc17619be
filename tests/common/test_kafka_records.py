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


def test_what_compresses_is_compressed_and_another_client_reads_it(stream: Stream) -> None:
    source, sink = stream.source(), stream.sink()
    sent = [squeezable(seq) for seq in range(5)]
    for made in sent:
        sink.put(made, timeout_s=10)
    sink.flush(10)
    got = independent.consume(stream.server, stream.topic)
    assert [m.value() for m in got] == [codec.encode(made, LIMITS.record_bytes) for made in sent]
    assert [m.key() for m in got] == [b"0"] * 5
    for received, made in zip(receive(source, 5), sent, strict=True):
        assert_same(received.trajectory, made)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_batches_of_another_client_are_read(stream: Stream, compression: str) -> None:
    source = stream.source()
    records = [codec.encode(squeezable(seq), LIMITS.record_bytes) for seq in range(10)]
    settings = {"compression.type": compression, "linger.ms": 50}
    independent.produce(stream.server, stream.topic, records, **settings)
    assert seqs(receive(source, 10)) == list(range(10))


def test_a_batch_that_swells_beyond_all_limits_is_stepped_over(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, client=client)
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    independent.produce(stream.server, stream.topic, [bytes(32 << 20)], **{"compression.type": "lz4"})
    put(sink, 1)
    assert seqs(receive(source, 2)) == [0, 1]
    assert stream.metrics.value("learner_rejected_total", reason="crc") == 1
    stream.close()
