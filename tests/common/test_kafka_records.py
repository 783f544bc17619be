"""Records as they lie in the log: other clients read and write them, and bad ones cost nothing but themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headrace.common import codec
from headrace.common.types import Trajectory

from . import independent
from .kafka_streams import LIMITS, Stream, put, receive, seqs
from .samples import assert_same, trajectory


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
