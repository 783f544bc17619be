"""Dead letters in Kafka: kept with where they come from; what cannot be kept costs itself and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.common.transport.kafka_dead import LINES

from . import independent
from .kafka_streams import LIMITS, Stream, put, receive, seqs, wait_for


def letters(stream: Stream, count: int) -> list[tuple[dict[str, str], bytes | None, bytes]]:
    """Headers, key and value of the dead letters, once there are ``count``."""
    got: list[Any] = []

    def there() -> bool:
        got[:] = independent.consume(stream.server, f"{stream.topic}.dead")
        return len(got) >= count

    wait_for(there)
    return [({k: v.decode() for k, v in m.headers()}, m.key(), m.value()) for m in got]


def test_a_dead_letter_says_where_it_comes_from(stream: Stream) -> None:
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    independent.produce(stream.server, stream.topic, [b"poison"], key=b"an actor")
    put(sink, 1)
    assert seqs(receive(source, 2)) == [0, 1]
    ((headers, key, value),) = letters(stream, 1)
    detail = headers.pop("detail")
    assert headers == {"reason": "malformed", "topic": stream.topic, "partition": "0", "offset": "1"}
    assert "shorter than the prefix" in detail
    assert (key, value) == (b"an actor", b"poison")


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
    assert len(letters(stream, flood)) == flood
    assert sum(" rejected (" in line for line in caplog.messages) == LINES
    assert "further rejected records are only counted, not logged" in caplog.messages[-1]


def test_a_record_too_large_to_keep_is_kept_cut_and_says_so(stream: Stream) -> None:
    """A topic may take more than this learner does."""
    source, sink = stream.source(), stream.sink()
    independent.alter_topic(stream.server, stream.topic, {"max.message.bytes": str(8 << 20)})
    independent.produce(stream.server, stream.topic, [b"x" * (2 << 20), b"poison"], key=b"k" * 100_000)
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]
    (large, small) = letters(stream, 2)
    assert large[0]["reason"] == "size"
    assert large[0]["cut_from_bytes"] == str(2 << 20)
    assert LIMITS.record_bytes <= len(large[2]) < 2 << 20
    assert small[2] == b"poison"
    assert "cut_from_bytes" not in small[0]
    assert stream.metrics.value("transport_errors_total", kind="dead_letter") == 0


def test_a_letter_that_cannot_be_kept_costs_that_letter(stream: Stream) -> None:
    source, sink = stream.source(), stream.sink()
    independent.alter_topic(stream.server, f"{stream.topic}.dead", {"max.message.bytes": "20000"})
    for k, kept in enumerate((b"one", b"two", b"three")):
        independent.produce(stream.server, stream.topic, [kept, b"x" * 50_000])
        put(sink, k)
        assert seqs(receive(source, 1)) == [k]
        wait_for(lambda k=k: stream.metrics.value("transport_errors_total", kind="dead_letter") == k + 1)  # type: ignore[misc]
    assert [value for _, _, value in letters(stream, 3)] == [b"one", b"two", b"three"]


def test_letters_are_cut_to_what_their_topic_takes(stream: Stream) -> None:
    """The topic of an earlier run may have had smaller records."""
    stream.source().close()
    independent.alter_topic(stream.server, f"{stream.topic}.dead", {"max.message.bytes": "100000"})
    source, sink = stream.source(), stream.sink()
    independent.produce(stream.server, stream.topic, [b"x" * 200_000])
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]
    ((headers, _, value),) = letters(stream, 1)
    assert headers["cut_from_bytes"] == "200000"
    assert 10_000 < len(value) < 100_000
