"""What every carrier promises. A carrier is what passes here; carriers.py lists them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.common import codec
from headrace.common.errors import Closed, Rejected, TransportError
from headrace.common.transport import Limits, Source

from .carriers import CARRIERS, LIMITS, Carrier
from .kafka_streams import receive
from .samples import assert_same, trajectory

DEADLINE_S = 30.0
PRODUCER = Path(__file__).parent / "producer.py"


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Carrier]:
    kind = CARRIERS[request.param]
    made = kind(tmp_path, request.getfixturevalue(kind.fixture) if kind.fixture else "")
    yield made
    made.close()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


def nothing_more(source: Source) -> bool:
    return source.get(timeout_s=0.3) is None


def test_what_is_put_is_got_bit_for_bit_and_read_only(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    sent = trajectory(seq=5, T=100, ends=3)
    sink.put(sent, timeout_s=5)
    (received,) = receive(source, 1)
    assert_same(received.trajectory, sent)
    assert sent.nbytes <= received.nbytes <= len(codec.encode(sent, LIMITS.record_bytes)), "what waits is unpacked"
    assert not any(a.flags.writeable for a in received.trajectory.arrays.values())


def test_order_per_key_and_nothing_lost(carrier: Carrier) -> None:
    source = carrier.source()
    sinks = [carrier.sink(key=str(k)) for k in range(3)]
    for seq in range(20):
        for k, sink in enumerate(sinks):
            sink.put(trajectory(seq, actor_id=k), timeout_s=5)
    got = [r.trajectory for r in receive(source, 60)]
    for k in range(3):
        assert [t.seq for t in got if t.actor_id == k] == list(range(20))
    assert nothing_more(source)


def test_records_are_counted_on_both_sides(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    for seq in range(4):
        sink.put(trajectory(seq), timeout_s=5)
    nbytes = sum(r.nbytes for r in receive(source, 4))
    wait_for(lambda: carrier.sink_metrics.value("transport_records_total", direction="put") == 4)  # its acknowledgement
    for metrics, direction in ((carrier.sink_metrics, "put"), (carrier.source_metrics, "got")):
        assert metrics.value("transport_records_total", direction=direction) == 4
        assert metrics.value("transport_bytes_total", direction=direction) == nbytes


def test_memory_is_bounded_in_bytes_and_a_blocked_put_goes_on(carrier: Carrier) -> None:
    """Nobody reads. Without a log put blocks once both sides' budgets are full; with one the log takes it all."""
    source, sink = carrier.source(), carrier.sink()
    big = trajectory(T=1000)
    nbytes = len(codec.encode(big, LIMITS.record_bytes))
    most = 2 * (LIMITS.queue_bytes // nbytes)
    count = 0
    blocked = ""
    while count < 2 * most and not blocked:
        try:
            sink.put(replace(big, seq=count), timeout_s=5 if carrier.has_log else 0.5)
            count += 1
        except TransportError as e:
            blocked = str(e)
        assert carrier.sink_metrics.value("transport_unacked_bytes") <= LIMITS.queue_bytes
        assert carrier.source_metrics.value("transport_queue_bytes") <= LIMITS.queue_bytes
    assert blocked == "" if carrier.has_log else "timed out" in blocked
    assert carrier.has_log or most - 2 <= count <= most
    assert [r.trajectory.seq for r in receive(source, count)] == list(range(count))
    sink.put(replace(big, seq=99), timeout_s=5)
    (last,) = receive(source, 1)
    assert last.trajectory.seq == 99, "the put that timed out must have left nothing"


def test_waits_end_when_they_should(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    began = time.monotonic()
    assert source.get(timeout_s=0.1) is None
    assert 0.1 <= time.monotonic() - began < 2
    sink.put(trajectory(), timeout_s=5)
    sink.flush(timeout_s=10)
    assert carrier.sink_metrics.value("transport_unacked_bytes") == 0


def test_an_oversize_record_is_refused_at_put_and_the_next_one_passes(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    with pytest.raises(Rejected, match=f"over the cap of {LIMITS.record_bytes} bytes") as caught:
        sink.put(trajectory(T=5000), timeout_s=5)
    assert caught.value.reason == "size"
    assert "\n" not in str(caught.value)
    sink.put(trajectory(seq=1), timeout_s=5)
    (received,) = receive(source, 1)
    assert received.trajectory.seq == 1


def test_the_largest_record_the_limits_allow_passes(carrier: Carrier) -> None:
    largest = trajectory(T=1800)
    nbytes = len(codec.encode(largest, 1 << 20))
    limits = Limits(record_bytes=nbytes, queue_bytes=nbytes)
    source, sink = carrier.source(limits), carrier.sink(limits)
    for _ in range(3):
        sink.put(largest, timeout_s=5)
        receive(source, 1)


@pytest.mark.parametrize(
    ("reason", "at", "value"),
    [("crc", -1, 255), ("malformed", 0, 0), ("version", 4, 9), ("malformed", None, 0)],
    ids=["bit-flipped", "not ours", "from the future", "cut short"],
)
def test_poison_is_kept_with_its_reason_and_its_neighbours_survive(
    carrier: Carrier, reason: str, at: int | None, value: int
) -> None:
    data = bytearray(codec.encode(trajectory(), LIMITS.record_bytes))
    if at is None:
        del data[100:]
    else:
        data[at] ^= value or 1
    source, sink = carrier.source(), carrier.sink()
    sink.put(trajectory(seq=1), timeout_s=5)
    carrier.poison(bytes(data))
    sink.put(trajectory(seq=2), timeout_s=5)
    assert [r.trajectory.seq for r in receive(source, 2)] == [1, 2]
    wait_for(lambda: carrier.source_metrics.value("learner_rejected_total", reason=reason) == 1)
    wait_for(lambda: carrier.dead_letters() == [(reason, bytes(data))])
    assert nothing_more(source)


def test_a_record_that_validation_refused_is_kept(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    sent = trajectory(schema_hash="another")
    sink.put(sent, timeout_s=5)
    (received,) = receive(source, 1)
    source.reject(received, "schema", "of another schema")
    wait_for(lambda: len(carrier.dead_letters()) == 1)
    ((reason, data),) = carrier.dead_letters()
    assert reason == "schema"
    assert_same(codec.decode(data, LIMITS.record_bytes), sent)


def test_backlog_counts_what_waits(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    for seq in range(3):
        sink.put(trajectory(seq), timeout_s=5)
    wait_for(lambda: source.backlog() == 3)
    receive(source, 1)
    wait_for(lambda: source.backlog() == 2)


def test_seek_goes_back_where_there_is_a_log_and_does_nothing_where_there_is_none(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    for seq in range(6):
        sink.put(trajectory(seq), timeout_s=5)
    got = receive(source, 4)
    position = {got[1].partition: got[1].next_offset}
    source.commit(position)
    source.seek(position)
    expected = [2, 3, 4, 5] if carrier.has_log else [4, 5]
    assert [r.trajectory.seq for r in receive(source, len(expected))] == expected
    assert nothing_more(source)


def test_close_is_idempotent_bounded_and_final(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    sink.put(trajectory(), timeout_s=5)
    began = time.monotonic()
    for _ in range(2):
        sink.close(timeout_s=5)
        source.close(timeout_s=5)
    assert time.monotonic() - began < 12
    with pytest.raises(Closed):
        sink.put(trajectory(), timeout_s=5)
    with pytest.raises(Closed):
        source.get(timeout_s=5)


def test_two_producer_processes(carrier: Carrier) -> None:
    source = carrier.source(Limits())
    command = [sys.executable, str(PRODUCER), carrier.url]
    children = [subprocess.Popen([*command, str(k), "30", "500"], stdout=subprocess.DEVNULL) for k in range(2)]
    try:
        got = [r.trajectory for r in receive(source, 60)]
    finally:
        codes = [child.wait(DEADLINE_S) for child in children]
    assert codes == [0, 0]
    for k in range(2):
        assert [t.seq for t in got if t.actor_id == k] == list(range(30))


@pytest.mark.real_server
def test_a_killed_producer_leaves_no_half_record_and_holds_up_nobody(carrier: Carrier) -> None:
    source = carrier.source(Limits())
    command = [sys.executable, str(PRODUCER), carrier.url]
    victim = subprocess.Popen([*command, "0", "0", "20000"], stdout=subprocess.DEVNULL)
    try:
        early = [r.trajectory for r in receive(source, 10)]
    finally:
        victim.kill()
        victim.wait(DEADLINE_S)
    survivor = subprocess.Popen([*command, "1", "30", "500"], stdout=subprocess.DEVNULL)
    late = []
    end = time.monotonic() + DEADLINE_S
    while sum(t.actor_id == 1 for t in late) < 30 and time.monotonic() < end:
        if (received := source.get(timeout_s=0.2)) is not None:
            late.append(received.trajectory)
    assert survivor.wait(DEADLINE_S) == 0
    assert [t.seq for t in late if t.actor_id == 1] == list(range(30))
    seqs = [t.seq for t in early + late if t.actor_id == 0]
    assert seqs == list(range(len(seqs))), "what the victim had put arrives in order, without a gap"
    assert carrier.dead_letters() == []


@pytest.mark.real_server
def test_a_sink_notices_that_its_carrier_is_gone(carrier: Carrier) -> None:
    source, sink = carrier.source(), carrier.sink()
    sink.put(trajectory(), timeout_s=5)
    receive(source, 1)
    carrier.end()
    began = time.monotonic()

    def put_and_flush() -> None:
        while time.monotonic() - began < 2 * DEADLINE_S:
            sink.put(trajectory(seq=1), timeout_s=2)
            sink.flush(timeout_s=2)

    with pytest.raises(TransportError):
        put_and_flush()
    assert time.monotonic() - began < DEADLINE_S
