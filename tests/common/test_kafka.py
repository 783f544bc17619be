"""kafka://, where it goes beyond the contract: addresses, limits, positions, gaps."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from headrace.common.errors import TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport import Received, open_sink
from headrace.common.transport.kafka_address import Secret, message_bytes, parse
from headrace.common.transport.kafka_dead import DeadLetters
from headrace.common.transport.kafka_reader import Reader

from . import independent
from .kafka_streams import DEADLINE_S, LIMITS, PASSWORD, USER, Stream, put, receive, seqs, wait_for
from .samples import trajectory

# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("kafka://host/topic", "'host' is no host:port"),
        ("kafka://host:9092", "'' is no topic name"),
        ("kafka://host:9092/a/b", "'a/b' is no topic name"),
        ("kafka://me:secret@host:9092/topic", "set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD_FILE"),
        ("kafka://host:9092/topic?partitions=0", "partitions=0 must be a whole number above 0"),
        ("kafka://host:9092/topic?colour=red", "unknown option 'colour'; known are api_version, cafile"),
        ("kafka://host:9092/topic?compression=zip", "must be one of lz4, none"),
        ("kafka://host:9092/topic?client=java", "client=java must be one of kafka-python, confluent"),
        ("kafka://host:9092/topic?security=SASL_SSL", "set KAFKA_SASL_USERNAME in the environment"),
        ("kafka://host:9092/topic?security=TLS", "must be one of PLAINTEXT, SSL"),
        ("kafka://host:9092/topic?security=SSL&cafile=/none.pem", "ssl_cafile '/none.pem' is no file"),
    ],
)
def test_a_bad_address_is_one_line(url: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(url)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_address_is_completed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SASL_USERNAME", USER)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    address = parse("kafka://a:1,b:2/t?sasl=SCRAM-SHA-256&partitions=8")
    assert (address.brokers, address.topic, address.partitions) == (("a:1", "b:2"), "t", 8)
    assert address.login["security_protocol"] == "SASL_SSL"
    assert address.login["sasl_plain_password"] == PASSWORD
    assert PASSWORD not in f"{address!r} {dict(address.login)}"
    assert isinstance(address.login["sasl_plain_password"], Secret)


def test_a_client_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "confluent_kafka" else real(name))
    with pytest.raises(UsageError, match=r"needs confluent-kafka: pip install 'headrace\[confluent\]'") as caught:
        parse("kafka://host:9092/topic?client=confluent")
    assert "\n" not in str(caught.value)
    assert parse("kafka://host:9092/topic").client == "kafka_python"


def test_no_broker_is_one_line_and_soon() -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"kafka://127\.0\.0\.1:1/t: no broker answers") as caught:
        open_sink("kafka://127.0.0.1:1/t", limits=LIMITS, metrics=Metrics("actor"), key="0")
    assert time.monotonic() - began < 12
    assert "\n" not in str(caught.value)


# --- topics --------------------------------------------------------------------------------------------------------


def test_the_learner_makes_the_topics_with_limits_that_fit(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, partitions=3, options="&retention_s=60&retention_bytes=123456789", client=client)
    stream.source()
    made = independent.topic_settings(stream.server, stream.topic)
    dead = independent.topic_settings(stream.server, f"{stream.topic}.dead")
    stream.close()
    assert int(made["max.message.bytes"]) == message_bytes(LIMITS) > LIMITS.record_bytes
    assert (made["retention.ms"], made["retention.bytes"]) == ("60000", "123456789")
    assert int(dead["max.message.bytes"]) > message_bytes(LIMITS)
    for topic in (made, dead):
        assert (topic["compression.type"], topic["message.timestamp.type"]) == ("uncompressed", "LogAppendTime")


@pytest.mark.parametrize(
    "settings",
    [{"compression.type": "producer"}, {"message.timestamp.type": "CreateTime"}, {"compression.type": "lz4"}],
    ids=str,
)
def test_a_topic_that_lets_actors_compress_or_stamp_is_refused_with_the_command_that_alters_it(
    stream: Stream, settings: dict[str, str]
) -> None:
    stream.source().close()
    independent.alter_topic(stream.server, stream.topic, settings)
    for half in (stream.source, stream.sink):
        with pytest.raises(UsageError) as caught:
            half()
        said = str(caught.value)
        assert "\n" not in said
        command = said.partition("alter it: ")[2].split()
        assert command[0] == "kafka-configs.sh"
        assert command[command.index("--bootstrap-server") + 1] == stream.server
        assert command[command.index("--entity-name") + 1] == stream.topic
    wanted = dict(pair.split("=") for pair in command[-1].split(","))
    assert wanted.keys() == settings.keys()
    independent.alter_topic(stream.server, stream.topic, wanted)
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]


def test_an_actor_waits_for_the_topic_and_goes_on_when_it_is_there(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, client=client)
    opened = threading.Thread(target=stream.sink)
    opened.start()
    opened.join(0.5)
    assert opened.is_alive(), "it must wait"
    stream.source()
    opened.join(DEADLINE_S)
    stream.close()
    assert not opened.is_alive()


def test_an_actor_without_a_topic_says_so(real_kafka: str, monkeypatch: pytest.MonkeyPatch, client: str) -> None:
    monkeypatch.setattr("headrace.common.transport.kafka_topics.TOPIC_TIMEOUT_S", 0.3)
    with pytest.raises(UsageError, match="is not there; the learner, or setup, makes it"):
        Stream(real_kafka, client=client).sink()


def test_a_topic_with_a_smaller_limit_is_refused_on_both_sides(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, client=client)
    stream.source(limits=replace(LIMITS, record_bytes=1000))
    for half in (stream.source, stream.sink):
        with pytest.raises(UsageError, match=f"set max.message.bytes={message_bytes(LIMITS)}") as caught:
            half()
        assert "\n" not in str(caught.value)
    stream.close()


def test_ranks_share_the_partitions(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, partitions=3, client=client)
    ranks = [stream.source(rank, world=2) for rank in range(2)]
    for k in range(12):
        put(stream.sink(key=str(k)), k)
    wait_for(lambda: sum(source.backlog() for source in ranks) == 12)
    got = [receive(source, source.backlog()) for source in ranks]
    assert {r.partition % 2 for r in got[0]} == {0}
    assert {r.partition % 2 for r in got[1]} == {1}
    assert sorted(seqs(got[0]) + seqs(got[1])) == list(range(12))
    with pytest.raises(UsageError, match="nothing to read for rank 3 of 4, the topic has 3 partitions"):
        stream.source(3, world=4)
    stream.close()


# --- positions -----------------------------------------------------------------------------------------------------


def test_the_next_learner_goes_on_where_the_checkpoint_says_and_lag_is_committed(stream: Stream) -> None:
    first, sink = stream.source(), stream.sink()
    put(sink, *range(6))
    applied = receive(first, 4)[3]
    position = {applied.partition: applied.next_offset}
    first.commit(position)
    wait_for(lambda: independent.committed(stream.server, stream.topic, "test", 0) == 4)
    first.close()
    second = stream.source()
    second.seek(position)
    assert second.backlog() == 2
    assert seqs(receive(second, 2)) == [4, 5]


def test_what_close_finds_uncommitted_is_committed(stream: Stream) -> None:
    source, sink = stream.source(), stream.sink()
    put(sink, 0, 1)
    receive(source, 2)
    source.commit({0: 2})
    source.close()
    assert independent.committed(stream.server, stream.topic, "test", 0) == 2


@pytest.mark.parametrize(
    ("position", "says"),
    [({0: 7}, "position 7 of partition 0 is beyond the end of the log"), ({5: 0}, r"names partitions \[5\]")],
)
def test_a_position_of_another_log_is_refused(stream: Stream, position: dict[int, int], says: str) -> None:
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    with pytest.raises(UsageError, match=says):
        source.seek(position)


def test_what_retention_removed_is_counted_exactly(
    real_kafka: str, caplog: pytest.LogCaptureFixture, client: str
) -> None:
    stream = Stream(real_kafka, client=client)
    source = stream.source()
    put(stream.sink(), *range(10))
    independent.delete_before(stream.server, stream.topic, 0, 7)
    source.seek({0: 2})
    assert seqs(receive(source, 3)) == [7, 8, 9]
    assert stream.metrics.value("transport_gap_records_total") == 5
    assert "5 records of partition 0 were removed by retention" in caplog.text
    stream.close()


def test_retention_that_overtakes_a_reader_is_counted_exactly(real_kafka: str, client: str) -> None:
    """More than a client fetches ahead, of which retention removes most."""
    stream = Stream(real_kafka, client=client)
    stream.source().close()
    sink = stream.sink()
    for seq in range(200):
        sink.put(trajectory(seq, T=2300), timeout_s=10)
    sink.flush(timeout_s=30)
    address = parse(stream.url)
    dead = DeadLetters(address, LIMITS, stream.metrics, LIMITS.record_bytes)
    reader = Reader(address, LIMITS, stream.metrics, "test", lambda p: True, dead)
    reader.seek({0: 1})
    independent.delete_before(stream.server, stream.topic, 0, 190)
    got: list[int] = []
    wait_for(lambda: got.extend(r.trajectory.seq for r in reader.poll(0.2, 1 << 20)) or got[-1:] == [199])
    reader.close(5)
    stream.close()
    fetched = len(got) - 10
    assert got == [*range(1, 1 + fetched), *range(190, 200)]
    assert stream.metrics.value("transport_gap_records_total") == 190 - 1 - fetched > 0


def test_two_threads_may_ask_first(stream: Stream) -> None:
    source = stream.source()
    errors: list[BaseException] = []
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait()
        try:
            source.backlog()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    put(stream.sink(), 0)
    assert seqs(receive(source, 1)) == [0]


def test_a_source_that_waits_does_not_spin(stream: Stream) -> None:
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    receive(source, 1)
    cpu_s = time.process_time()
    for _ in range(6):
        assert source.get(timeout_s=0.5) is None
    assert time.process_time() - cpu_s < 1.0


def test_lag_is_a_metric(stream: Stream) -> None:
    source, sink = stream.source(limits=replace(LIMITS, queue_bytes=1)), stream.sink()
    put(sink, *range(8))
    receive(source, 2)
    wait_for(lambda: stream.metrics.value("transport_lag_records", partition="0") >= 4)
    assert source.backlog() == 6


def test_the_death_of_the_thread_is_seen_at_get(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stream.source()

    def fall_over(self: Reader, timeout_s: float, room_bytes: int) -> Iterator[Received]:
        raise MemoryError("no room for a frame")

    monkeypatch.setattr(Reader, "poll", fall_over)
    with pytest.raises(TransportError, match="reading ended with MemoryError: no room for a frame") as caught:
        wait_for(lambda: source.get(timeout_s=1) is not None)
    assert isinstance(caught.value.__cause__, MemoryError)
