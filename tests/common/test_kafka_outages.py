"""kafka:// and a broker that is killed, stays away, refuses, or changes what it was given."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from headrace.common import codec
from headrace.common.errors import TransportError, UsageError
from headrace.common.transport import Limits, Received
from headrace.common.transport.kafka_address import parse
from headrace.common.transport.kafka_topics import prepare

from . import independent
from .kafka_streams import DEADLINE_S, LIMITS, PASSWORD, USER, Served, Stream, put, receive, seqs, wait_for
from .samples import trajectory

# --- a broker that goes away -----------------------------------------------------------------------------------------


def test_kill_9_of_the_broker_loses_nothing_and_bounds_what_waits(own_broker: Served, client: str) -> None:
    stream = Stream(own_broker.bootstrap, client=client)
    source, sink = stream.source(), stream.sink()
    put(sink, *range(10), T=500)
    early = receive(source, 5)
    own_broker.kill()
    count, blocked = 10, False
    while not blocked:
        try:
            sink.put(trajectory(count, T=500), timeout_s=1.0)
            count += 1
        except TransportError as error:
            blocked = "no room" in str(error)
        assert stream.sink_metrics.value("transport_unacked_bytes") <= LIMITS.queue_bytes
        assert count < 100, "put must block"
    acknowledged = int(stream.sink_metrics.value("transport_records_total", direction="put"))
    assert acknowledged == 10
    own_broker.start()
    sink.flush(timeout_s=60)
    assert seqs(early + receive(source, count - 5)) == list(range(count))
    kept = [codec.decode(m.value(), 1 << 20).seq for m in independent.consume(stream.server, stream.topic)]
    assert kept == list(range(count)), "in order, each once"
    stream.close()


def test_a_broker_that_stays_away_ends_both_halves_in_time(own_broker: Served, client: str) -> None:
    stream = Stream(own_broker.bootstrap, options="&patience_s=4", client=client)
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    receive(source, 1)
    own_broker.kill()
    try:
        began = time.monotonic()
        sink.put(trajectory(1), timeout_s=5)
        with pytest.raises(TransportError, match=r"a record was not delivered: .*[Tt]imed? ?out"):
            sink.flush(timeout_s=30)
        with pytest.raises(TransportError, match="a record was not delivered"):
            sink.put(trajectory(2), timeout_s=5)
        cpu_s, away_s = time.process_time(), time.monotonic()
        with pytest.raises(TransportError, match="no broker for"):
            wait_for(lambda: source.get(timeout_s=1) is not None)
        assert time.monotonic() - began < 30
        assert time.process_time() - cpu_s < 0.3 * (time.monotonic() - away_s) + 1.0, "it spins"
        began = time.monotonic()
        sink.close(timeout_s=1)
        source.close(timeout_s=3)
        assert time.monotonic() - began < 6
    finally:
        own_broker.start()


def test_closing_a_sink_whose_broker_is_away_counts_what_is_lost(own_broker: Served, client: str) -> None:
    stream = Stream(own_broker.bootstrap, client=client)
    stream.source()
    sink = stream.sink()
    put(sink, 0)
    own_broker.kill()
    try:
        sink.put(trajectory(1), timeout_s=5)
        began = time.monotonic()
        sink.close(timeout_s=1)
        assert time.monotonic() - began < 3
        assert stream.sink_metrics.value("transport_errors_total", kind="lost") == 1
        stream.close()
    finally:
        own_broker.start()


def test_batches_whose_bytes_changed_in_the_log_are_stepped_over(own_broker: Served, client: str) -> None:
    """A batch of one record and one of several; the partition before it is whole, and written to meanwhile.
    kafka-python checks batches, so that one bad byte costs the batch; with confluent-kafka the codec checks, and it
    costs the record."""
    lost = [1, *range(3, 10)] if client == "kafka-python" else [1, 5]
    stream = Stream(own_broker.bootstrap, partitions=2, client=client)
    stream.source().close()
    records = [codec.encode(trajectory(seq), LIMITS.record_bytes) for seq in range(11)]
    for batch in (records[:1], records[1:2], records[2:3], records[3:10], records[10:11]):
        produce = {"linger.ms": 200, "batch.num.messages": 100}
        independent.produce(stream.server, stream.topic, list(batch), partition=1, **produce)
    own_broker.stop()
    segment = own_broker.data_dir / "log" / f"{stream.topic}-1" / f"{0:020d}.log"
    data = bytearray(segment.read_bytes())
    for seq in (1, 5):
        data[data.index(records[seq]) + 100] ^= 1
    segment.write_bytes(data)
    own_broker.start()
    over, written = threading.Event(), list[int]()

    def until_it_is_over() -> Iterator[bytes]:
        while not over.is_set():
            written.append(100 + len(written))
            yield codec.encode(trajectory(written[-1]), LIMITS.record_bytes)
            time.sleep(0.002)

    def write() -> None:
        independent.produce(stream.server, stream.topic, until_it_is_over(), partition=0)

    writer = threading.Thread(target=write)
    source = stream.source()
    writer.start()
    got: list[Received] = []
    try:
        wait_for(lambda: len(written) > 100)
        source.seek({})
        cpu_s = time.process_time()
        wait_for(lambda: got.extend(receive(source, 1)) or 10 in seqs(got))
    finally:
        over.set()
        writer.join()
    whole = {*range(11)} - {*lost} | {*written}
    assert sorted(seqs(got + receive(source, len(whole) - len(got)))) == sorted(whole)
    put(stream.sink(), 20)
    assert seqs(receive(source, 1)) == [20]
    assert stream.metrics.value("learner_rejected_total", reason="crc") == len(lost)
    assert time.process_time() - cpu_s < 5, "it spins"
    stream.close()


def batches(segment: bytes) -> list[tuple[int, int]]:
    """Of each batch in a log: its compression (0: none) and the number of its producer (-1: not idempotent). Kafka
    documentation, "Record Batch"."""
    found, at = list[tuple[int, int]](), 0
    while at < len(segment):
        (length,) = struct.unpack_from(">i", segment, at + 8)
        (attributes,) = struct.unpack_from(">h", segment, at + 21)
        found.append((attributes & 7, struct.unpack_from(">q", segment, at + 43)[0]))
        at += 12 + length
    return found


def test_batches_are_idempotent_and_not_compressed_by_the_client(own_broker: Served, client: str) -> None:
    """In the log of a topic that keeps what its writers do."""
    stream = Stream(own_broker.bootstrap, options="&compression=none", client=client)
    stream.source().close()
    sink = stream.sink()
    independent.alter_topic(stream.server, stream.topic, {"compression.type": "producer"})
    segment = own_broker.data_dir / "log" / f"{stream.topic}-0" / f"{0:020d}.log"

    def keeps() -> bool:
        settings = {"compression.type": "lz4", "enable.idempotence": False}
        independent.produce(stream.server, stream.topic, [bytes(10_000)], **settings)
        return batches(segment.read_bytes())[-1] == (3, -1)

    wait_for(keeps)
    made = trajectory(T=500)
    sink.put(replace(made, arrays={**made.arrays, "obs": np.zeros_like(made.arrays["obs"])}), timeout_s=10)
    sink.flush(timeout_s=30)
    compression, producer = batches(segment.read_bytes())[-1]
    assert compression == 0
    assert producer >= 0
    stream.close()


def test_a_broker_with_a_smaller_limit_is_refused(own_broker: Served, client: str) -> None:
    stream = Stream(own_broker.bootstrap, client=client)
    with pytest.raises(
        UsageError, match=r"takes requests up to 1048576 bytes.*set socket\.request\.max\.bytes"
    ) as caught:
        stream.source(limits=Limits(record_bytes=2 << 20))
    assert "\n" not in str(caught.value)


@pytest.fixture
def short_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.common.transport.kafka_contact.CONNECT_TIMEOUT_S", 2.0)
    monkeypatch.setenv("KAFKA_SASL_USERNAME", USER)


def test_a_login_is_used_and_a_refused_one_is_one_line(
    own_broker: Served, short_contact: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    client: str,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    stream = Stream(own_broker.login, options="&security=SASL_PLAINTEXT&sasl=PLAIN", client=client)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "wrong horse")
    with pytest.raises(UsageError, match="the login of 'actor'") as caught:
        stream.source()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]
    stream.close()
    assert "horse" not in caplog.text


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_login_by_scram_over_tls(
    own_broker: Served, short_contact: None, monkeypatch: pytest.MonkeyPatch, mechanism: str, client: str
) -> None:
    independent.allow_login(own_broker.bootstrap, USER, PASSWORD, mechanism)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "wrong horse")
    options = f"&security=SASL_SSL&sasl={mechanism}&cafile={own_broker.cert}"
    stream = Stream(own_broker.secure, options=options, client=client)
    with pytest.raises(UsageError, match="the login of 'actor'") as caught:
        stream.source()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    source, sink = stream.source(), stream.sink()
    put(sink, *range(20), T=500)
    assert seqs(receive(source, 20)) == list(range(20))
    stream.close()


def test_a_broker_whose_certificate_nobody_vouches_for_is_one_line(
    own_broker: Served, short_contact: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    with pytest.raises(UsageError, match=r"certificate is not trusted.*set cafile=") as caught:
        Stream(own_broker.secure, options="&security=SASL_SSL").source()
    assert "\n" not in str(caught.value)


def test_a_listener_of_another_kind_is_one_line(own_broker: Served, short_contact: None) -> None:
    for server, options in ((own_broker.login, "&security=PLAINTEXT"), (own_broker.bootstrap, "&security=SSL")):
        with pytest.raises(UsageError, match="the broker ends the connection; is security=") as caught:
            Stream(server, options=options).source()
        assert "\n" not in str(caught.value)


def test_the_topics_are_made_once_however_many_ranks_start_together(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, partitions=2, client=client)
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(prepare(parse(stream.url), LIMITS, create=True).partitions))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert counts == [2, 2, 2]
