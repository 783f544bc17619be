"""kafka:// as a log that may be shared, grow, or be lost: where reading begins, whose records count, what ends it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from headrace.common import codec
from headrace.common.errors import LogLost, TransportError
from headrace.common.transport import Source, for_run
from headrace.common.transport.kafka_address import parse
from tests.broker import OwnBroker

from . import independent
from .kafka_streams import LIMITS, Stream, put, receive, seqs, wait_for
from .samples import trajectory


def test_an_address_without_a_topic_means_one_topic_per_run() -> None:
    assert for_run("kafka://h:1,i:2?partitions=3", "a1b2") == "kafka://h:1,i:2/headrace-a1b2?partitions=3"
    assert for_run("kafka://h:1/", "a1b2") == "kafka://h:1/headrace-a1b2"
    assert for_run("kafka://h:1/mine?client=confluent", "a1b2") == "kafka://h:1/mine?client=confluent"
    assert for_run("local:///tmp/x", "a1b2") == "local:///tmp/x"
    assert parse(for_run("kafka://h:1", "my run/ü" * 40)).topic.startswith("headrace-my-run--")


# --- where reading begins --------------------------------------------------------------------------------------------


def test_a_fresh_source_begins_at_the_end_and_says_where_that_is(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, partitions=3, client=client)
    stream.source().close()
    old = codec.encode(trajectory(99), LIMITS.record_bytes)
    for p in (0, 0, 2):
        independent.produce(stream.server, stream.topic, [old], partition=p)
    source = stream.source()
    assert source.position() == {0: 2, 1: 0, 2: 1}
    for k in range(6):
        put(stream.sink(key=str(k)), k)
    assert sorted(seqs(receive(source, 6))) == [*range(6)]
    assert source.get(timeout_s=0.3) is None
    stream.close()


def test_what_was_acknowledged_before_the_first_checkpoint_is_read_again_from_the_begin(
    real_kafka: str, client: str
) -> None:
    """A learner makes ``position()`` durable before its first publication and dies before its first checkpoint."""
    stream = Stream(real_kafka, partitions=3, client=client)
    first = stream.source()
    begin = dict(first.position())
    for k in range(6):
        put(stream.sink(key=str(k)), k)
    receive(first, 4)
    first.close()
    second = stream.source()
    assert second.position() != begin
    second.seek(begin)
    assert second.position() == begin
    assert sorted(seqs(receive(second, 6))) == [*range(6)]
    stream.close()


def test_partitions_that_are_added_lose_nothing(real_kafka: str, client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.common.transport.kafka_python.METADATA_MAX_AGE_MS", 500)
    stream = Stream(real_kafka, partitions=1, client=client)
    source = stream.source()
    begin = source.position()
    put(stream.sink(), 0)
    assert seqs(receive(source, 1)) == [0]
    independent.add_partitions(stream.server, stream.topic, 3)
    records = [codec.encode(trajectory(seq), LIMITS.record_bytes) for seq in range(3)]
    for p in (1, 2):
        independent.produce(stream.server, stream.topic, [records[p]], partition=p)
    assert sorted(seqs(receive(source, 2))) == [1, 2], "a source that is open finds them"
    source.close()
    again = stream.source()
    again.seek(begin)
    assert sorted(seqs(receive(again, 3))) == [0, 1, 2], "a position of before does not name them: from their oldest on"
    stream.close()


# --- whose records count ---------------------------------------------------------------------------------------------


def test_records_of_other_runs_are_skipped_neither_buried_nor_counted(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, client=client)
    source, sink = stream.source(run_id="run"), stream.sink()
    put(sink, 0, 1, run_id="another run")
    put(sink, 2)
    independent.produce(stream.server, stream.topic, [b"not even a record"], headers=[("run", b"a third run")])
    put(sink, 3)
    assert [(r.trajectory.run_id, r.trajectory.seq) for r in receive(source, 2)] == [("run", 2), ("run", 3)]
    assert stream.metrics.value("transport_foreign_records_total") == 3
    assert stream.metrics.value("learner_rejected_total", reason="malformed") == 0
    assert independent.consume(stream.server, f"{stream.topic}.dead") == []
    wait_for(lambda: source.backlog() == 0)
    stream.close()


def test_the_header_decides_nothing_but_what_is_skipped(real_kafka: str, client: str) -> None:
    """Who writes our run's name on another run's record has it validated by the learner like any other."""
    stream = Stream(real_kafka, client=client)
    source = stream.source(run_id="run")
    lie = codec.encode(trajectory(1, run_id="another run"), LIMITS.record_bytes)
    plain = codec.encode(trajectory(2), LIMITS.record_bytes)
    independent.produce(stream.server, stream.topic, [lie], headers=[("run", b"run")])
    independent.produce(stream.server, stream.topic, [plain])  # of a writer that knows no header
    assert [r.trajectory.run_id for r in receive(source, 2)] == ["another run", "run"]
    put(stream.sink(), 3)
    assert independent.consume(stream.server, stream.topic)[-1].headers() == [("run", b"run")]
    stream.close()


# --- a log that is lost ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty_broker(tmp_path_factory: pytest.TempPathFactory, kafka_jars: None) -> Iterator[OwnBroker]:
    made = OwnBroker(tmp_path_factory.mktemp("lost") / "broker")
    yield made
    made.kill()


def ends_with(source: Source, within_s: float = 40.0) -> str:
    def read() -> None:
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            source.get(timeout_s=0.5)

    with pytest.raises(LogLost) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def delete(stream: Stream, broker: OwnBroker) -> None:
    independent.delete_topic(stream.server, stream.topic)


def remake(stream: Stream, broker: OwnBroker) -> None:
    independent.delete_topic(stream.server, stream.topic)
    stream.source().close()


def empty(stream: Stream, broker: OwnBroker) -> None:
    broker.kill()
    shutil.rmtree(broker.data_dir)
    broker.start()


LOSSES: dict[str, tuple[Callable[[Stream, OwnBroker], None], str]] = {
    "deleted": (delete, "the topic is not there any more: it was deleted, or the broker lost its disk"),
    "made anew": (remake, r"position 3 of partition 0 is beyond its end \(0\): the topic was made anew"),
    "broker started empty": (empty, "the topic is not there any more"),
}


@pytest.mark.parametrize("how", LOSSES)
def test_a_log_that_is_lost_during_a_run_is_one_line_of_its_own(empty_broker: OwnBroker, client: str, how: str) -> None:
    lose, says = LOSSES[how]
    stream = Stream(empty_broker.info.bootstrap, client=client)
    source = stream.source()
    put(stream.sink(), 0, 1, 2)
    receive(source, 3)
    lose(stream, empty_broker)
    said = ends_with(source)
    assert stream.topic in said
    assert re.search(says, said), said
    stream.close()


def test_a_position_of_a_topic_that_was_made_anew_is_told_from_another(real_kafka: str) -> None:
    stream = Stream(real_kafka)
    source = stream.source()
    put(stream.sink(), 0)
    first = source.log_id
    assert first
    assert stream.source().log_id == first
    independent.delete_topic(stream.server, stream.topic)
    again = stream.source()
    assert again.log_id not in ("", first)
    with pytest.raises(LogLost, match="beyond the end of the log"):
        again.seek({0: 1})
    put(stream.sink(), 1, 2)
    with pytest.raises(LogLost, match="the topic was made anew since that position was taken"):
        stream.source().seek({0: 1}, first)
    right = stream.source()
    right.seek({0: 1}, again.log_id)
    assert seqs(receive(right, 1)) == [2]
    stream.close()


def test_a_sink_whose_topic_is_gone_names_it(real_kafka: str, client: str) -> None:
    stream = Stream(real_kafka, options="&patience_s=4", client=client)
    stream.source().close()
    sink = stream.sink()
    put(sink, 0)
    independent.delete_topic(stream.server, stream.topic)

    def until_it_fails() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            sink.put(trajectory(1), timeout_s=10)
            sink.flush(timeout_s=30)

    with pytest.raises(TransportError, match=stream.topic) as caught:
        until_it_fails()
    assert "\n" not in str(caught.value)
