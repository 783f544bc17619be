"""The Kafka carrier against its bare clients: 1 MB fragments of random bytes, one process each, each way.

    python bench/kafka_clients.py [--records 800] [--repeats 9] [--json NAME]

Starts a broker of its own (headrace.launch.broker), its log in TMPDIR: on a disk, that disk is what is measured
(TMPDIR=/dev/shm takes it away). Every measurement is a process of its own on a topic of one partition. Each client is
measured twice: as our sink and source use it, and bare, in a loop as its documentation shows it, with our codec in the
same loop. Both use the same idempotence and acks=all, the same sizes, the same limit of unacknowledged bytes; both read
what our sink wrote. What is compared is therefore what the carrier itself costs. A ratio is the median over the
repeats, each of which has both in turn. Timed: from the first record handed over to the last acknowledgement; from the
first record got to the last.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hardware
import numpy as np
from kafka.admin import KafkaAdminClient

from headrace.common.codec import decode, encode
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_sink, open_source
from headrace.common.transport.kafka_address import OVERHEAD_BYTES, message_bytes
from headrace.common.transport.kafka_client import BATCH_BYTES, FETCH_BYTES
from headrace.common.types import Trajectory
from headrace.launch import broker

RECORD_BYTES = 1 << 20
LIMITS = Limits()
DIFFERENT = 16  # records prepared in advance and sent in turn
WAIT_S = 60.0


def fragments() -> list[Trajectory]:
    rng = np.random.default_rng(0)
    T, B = 128, 8
    width = RECORD_BYTES // (T * B)
    return [
        Trajectory(
            run_id="bench", learner_epoch=1, actor_id=0, incarnation=1, seq=seq, policy_version=0, lease=seq,
            task_id="random", schema_hash="0" * 16, T=T, B=B,
            arrays={"obs": rng.integers(0, 256, (T, B, width), np.uint8)},
        )
        for seq in range(DIFFERENT)
    ]  # fmt: skip


def put_carrier(client: str, address: str, records: int) -> float:
    sink = open_sink(f"{address}?client={client}", limits=LIMITS, metrics=Metrics("actor"), key="actor-0")
    made = fragments()
    sink.put(made[0])
    sink.flush(WAIT_S)
    began = time.perf_counter()
    for i in range(records):
        sink.put(made[i % DIFFERENT], WAIT_S)
    sink.flush(WAIT_S)
    took = time.perf_counter() - began
    sink.close(5.0)
    return took


def get_carrier(client: str, address: str, records: int) -> float:
    url = f"{address}?client={client}"
    source = open_source(url, limits=LIMITS, metrics=Metrics("learner"), dead_letter=Path("unused"), group="bench")
    source.seek({})
    assert source.get(WAIT_S) is not None
    began = time.perf_counter()
    for _ in range(records):
        assert source.get(WAIT_S) is not None
    took = time.perf_counter() - began
    source.close(5.0)
    return took


def put_bare_confluent(address: str, records: int) -> float:
    from confluent_kafka import Producer

    host, topic = address.removeprefix("kafka://").split("/")
    producer = Producer(
        {
            "bootstrap.servers": host,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            "batch.size": BATCH_BYTES,
            "message.max.bytes": message_bytes(LIMITS),
            "queue.buffering.max.kbytes": LIMITS.queue_bytes >> 10,
        }
    )
    made = fragments()
    producer.produce(topic, _encoded(made[0]), b"actor-0")
    assert producer.flush(WAIT_S) == 0
    began = time.perf_counter()
    for i in range(records):
        record = _encoded(made[i % DIFFERENT])
        while True:
            try:
                producer.produce(topic, record, b"actor-0")
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(WAIT_S) == 0
    return time.perf_counter() - began


def get_bare_confluent(address: str, records: int) -> float:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    host, topic = address.removeprefix("kafka://").split("/")
    consumer = Consumer(
        {
            "bootstrap.servers": host,
            "group.id": "bench-confluent",
            "enable.auto.commit": False,
            "fetch.max.bytes": FETCH_BYTES,
            "max.partition.fetch.bytes": FETCH_BYTES,
            "queued.max.messages.kbytes": 2 * FETCH_BYTES >> 10,
            "fetch.queue.backoff.ms": 10,
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])

    def get(n: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while n:
            assert time.monotonic() < deadline, f"{n} records missing"
            message = consumer.poll(1.0)
            if message is not None:
                assert message.error() is None, message.error()
                decode(message.value(), LIMITS.record_bytes)
                n -= 1

    get(1)
    began = time.perf_counter()
    get(records)
    took = time.perf_counter() - began
    consumer.close()
    return took


def put_bare_python(address: str, records: int) -> float:
    from kafka import KafkaProducer

    host, topic = address.removeprefix("kafka://").split("/")
    producer = KafkaProducer(
        bootstrap_servers=host,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        batch_size=BATCH_BYTES,
        max_request_size=message_bytes(LIMITS) + OVERHEAD_BYTES,
        metrics_enabled=False,
    )
    made, under_way = fragments(), deque[Any]()
    most = LIMITS.queue_bytes // RECORD_BYTES
    producer.send(topic, _encoded(made[0]), b"actor-0").get(WAIT_S)
    began = time.perf_counter()
    for i in range(records):
        if len(under_way) == most:  # the client itself has no limit
            under_way.popleft().get(WAIT_S)
        under_way.append(producer.send(topic, _encoded(made[i % DIFFERENT]), b"actor-0"))
    for future in under_way:
        future.get(WAIT_S)
    took = time.perf_counter() - began
    producer.close(5.0)
    return took


def get_bare_python(address: str, records: int) -> float:
    from kafka import KafkaConsumer, TopicPartition

    host, topic = address.removeprefix("kafka://").split("/")
    consumer = KafkaConsumer(
        bootstrap_servers=host,
        enable_auto_commit=False,
        fetch_max_bytes=max(FETCH_BYTES, 2 * message_bytes(LIMITS)),
        max_partition_fetch_bytes=max(FETCH_BYTES, 2 * message_bytes(LIMITS)),
        metrics_enabled=False,
    )
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    got, began = 0, 0.0
    deadline = time.monotonic() + WAIT_S
    while got <= records:
        assert time.monotonic() < deadline, f"{records - got} records missing"
        for polled in consumer.poll(timeout_ms=1000).values():
            for record in polled:
                decode(record.value, LIMITS.record_bytes)
                began = began or time.perf_counter()
                got += 1
    took = (time.perf_counter() - began) * records / (got - 1)
    consumer.close(autocommit=False)
    return took


def _encoded(fragment: Trajectory) -> bytes:
    return encode(fragment, LIMITS.record_bytes, compress=True)


CASES: dict[str, dict[str, Callable[[str, int], float]]] = {
    "put": {
        "kafka-python": partial(put_carrier, "kafka-python"), "bare kafka-python": put_bare_python,
        "confluent": partial(put_carrier, "confluent"), "bare confluent": put_bare_confluent,
    },
    "get": {
        "kafka-python": partial(get_carrier, "kafka-python"), "bare kafka-python": get_bare_python,
        "confluent": partial(get_carrier, "confluent"), "bare confluent": get_bare_confluent,
    },
}  # fmt: skip


def measure(way: str, client: str, address: str, records: int) -> float:
    """MB/s (10^6 bytes) of one case in a process of its own."""
    case = [sys.executable, __file__, "--case", way, client, address, "--records", str(records)]
    done = subprocess.run(case, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return records * RECORD_BYTES / 1e6 / float(done.stdout)


def compare(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    rates: dict[str, dict[str, list[float]]] = {way: {client: [] for client in CASES[way]} for way in CASES}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        data_dir = Path(folder) / "broker"
        info = broker.start(data_dir, port=0, settings={"log.segment.delete.delay.ms": "1000"})
        try:
            for repeat in range(args.repeats):
                order = list(CASES["put"]) if repeat % 2 == 0 else list(CASES["put"])[::-1]
                read = ""
                for client in order:
                    topic = f"bench-{uuid.uuid4().hex[:8]}"
                    address = f"kafka://{info.bootstrap}/{topic}"
                    make_topic(address)
                    rates["put"][client].append(measure("put", client, address, args.records))
                    if client == "kafka-python":
                        read = topic
                    else:
                        delete_topic(info.bootstrap, topic)
                for client in order:
                    address = f"kafka://{info.bootstrap}/{read}"
                    rates["get"][client].append(measure("get", client, address, args.records))
                delete_topic(info.bootstrap, read)
        finally:
            broker.stop(data_dir)
    return rates


def make_topic(address: str) -> None:
    url = f"{address}?partitions=1"
    open_source(url, limits=LIMITS, metrics=Metrics("learner"), dead_letter=Path("unused"), group="bench").close()


def delete_topic(bootstrap: str, topic: str) -> None:
    """What one case wrote must not slow down the next: the fourth topic of a repeat was written at half the speed of
    the others, whichever client wrote it."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.delete_topics([topic])
    admin.close()
    time.sleep(3.0)
    os.sync()


def report(rates: dict[str, dict[str, list[float]]], args: argparse.Namespace) -> dict[str, object]:
    result: dict[str, object] = {
        "what": "MB/s of 1 MiB records of random bytes through one local broker; carrier / bare client, medians",
        "records": args.records,
        "repeats": args.repeats,
    }
    for way, by_client in rates.items():
        middle = {client: statistics.median(all_) for client, all_ in by_client.items()}
        ratios = {
            client: statistics.median(
                ours / bare for ours, bare in zip(by_client[client], by_client[f"bare {client}"], strict=True)
            )
            for client in ("kafka-python", "confluent")
        }
        for client, ratio in ratios.items():
            ours, bare = middle[client], middle[f"bare {client}"]
            print(f"{way}  {client:13} {ours:7.0f} MB/s   bare {bare:7.0f} MB/s   {ratio:5.2f}")
        result[way] = {"MB/s": middle, "ratio": ratios, "all": by_client}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=800)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", metavar="NAME", help="keep the figures as bench/results/NAME.json")
    parser.add_argument("--case", nargs=3, metavar=("WAY", "CLIENT", "ADDRESS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        way, client, address = args.case
        print(CASES[way][client](address, args.records))
        return
    result = report(compare(args), args)
    if args.json:
        hardware.save(args.json, result)


if __name__ == "__main__":
    main()
