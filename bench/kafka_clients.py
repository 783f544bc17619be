"""Kafka sink and source against confluent-kafka: 1 MB fragments of random bytes, one process each, each way.

    python bench/kafka_clients.py [--records 800] [--repeats 5] [--compression lz4|none] [--json NAME]

Starts a broker of its own (headrace.launch.broker). Every measurement is a process of its own on a topic of one
partition; ours includes the codec and its checksum, confluent-kafka moves the same bytes as they are. Both use the same
compression, idempotence and acks=all, the same limit of unacknowledged bytes; both read what our sink wrote, and verify
Kafka's checksum.
Timed: from the first record handed over to the last acknowledgement; from the first record got to the last.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import hardware
import numpy as np

from headrace.common.codec import encode
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_sink, open_source
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


def put_headrace(address: str, records: int, compression: str) -> float:
    sink = open_sink(f"{address}?compression={compression}", limits=LIMITS, metrics=Metrics("actor"), key="actor-0")
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


def put_confluent(address: str, records: int, compression: str) -> float:
    from confluent_kafka import Producer

    host, topic = address.removeprefix("kafka://").split("/")
    producer = Producer(
        {
            "bootstrap.servers": host,
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": compression,
            "linger.ms": 5,
            "message.max.bytes": LIMITS.record_bytes,
            "queue.buffering.max.kbytes": LIMITS.queue_bytes >> 10,
        }
    )
    made = [encode(fragment, LIMITS.record_bytes) for fragment in fragments()]
    producer.produce(topic, made[0], b"actor-0")
    assert producer.flush(WAIT_S) == 0
    began = time.perf_counter()
    for i in range(records):
        while True:
            try:
                producer.produce(topic, made[i % DIFFERENT], b"actor-0")
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(WAIT_S) == 0
    return time.perf_counter() - began


def get_headrace(address: str, records: int, compression: str) -> float:
    source = open_source(address, limits=LIMITS, metrics=Metrics("learner"), dead_letter=Path("unused"), group="bench")
    assert source.get(WAIT_S) is not None
    began = time.perf_counter()
    for _ in range(records):
        assert source.get(WAIT_S) is not None
    took = time.perf_counter() - began
    source.close(5.0)
    return took


def get_confluent(address: str, records: int, compression: str) -> float:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    host, topic = address.removeprefix("kafka://").split("/")
    consumer = Consumer(
        {
            "bootstrap.servers": host,
            "group.id": "bench-confluent",
            "enable.auto.commit": False,
            "check.crcs": True,
            "fetch.message.max.bytes": LIMITS.record_bytes,
            "queued.max.messages.kbytes": LIMITS.queue_bytes >> 10,
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
                assert len(message.value()) >= RECORD_BYTES
                n -= 1

    get(1)
    began = time.perf_counter()
    get(records)
    took = time.perf_counter() - began
    consumer.close()
    return took


CASES = {
    "put": {"headrace": put_headrace, "confluent": put_confluent},
    "get": {"headrace": get_headrace, "confluent": get_confluent},
}


def measure(way: str, client: str, address: str, args: argparse.Namespace) -> float:
    """MB/s (10^6 bytes) of one case in a process of its own."""
    case = [sys.executable, __file__, "--case", way, client, address]
    options = ["--records", str(args.records), "--compression", args.compression]
    done = subprocess.run([*case, *options], stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return args.records * RECORD_BYTES / 1e6 / float(done.stdout)


def compare(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    rates: dict[str, dict[str, list[float]]] = {way: {client: [] for client in CASES[way]} for way in CASES}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        data_dir = Path(folder) / "broker"
        info = broker.start(data_dir, port=0)
        try:
            for repeat in range(args.repeats):
                order = list(CASES["put"]) if repeat % 2 == 0 else list(CASES["put"])[::-1]
                topics = {client: f"kafka://{info.bootstrap}/bench-{uuid.uuid4().hex[:8]}" for client in order}
                for client in order:
                    make_topic(topics[client])
                    rates["put"][client].append(measure("put", client, topics[client], args))
                for client in order:
                    rates["get"][client].append(measure("get", client, topics["headrace"], args))
        finally:
            broker.stop(data_dir)
    return rates


def make_topic(address: str) -> None:
    url = f"{address}?partitions=1"
    open_source(url, limits=LIMITS, metrics=Metrics("learner"), dead_letter=Path("unused"), group="bench").close()


def report(rates: dict[str, dict[str, list[float]]], args: argparse.Namespace) -> dict[str, object]:
    result: dict[str, object] = {
        "what": "MB/s of 1 MiB records of random bytes through one local broker, medians",
        "records": args.records,
        "repeats": args.repeats,
        "compression": args.compression,
    }
    print(f"{'':6}{'headrace':>12}{'confluent':>12}{'ratio':>8}")
    for way, by_client in rates.items():
        ours, theirs = (statistics.median(by_client[client]) for client in ("headrace", "confluent"))
        print(f"{way:6}{ours:9.0f} MB/s{theirs:7.0f} MB/s{ours / theirs:8.2f}")
        result[way] = {"headrace": ours, "confluent": theirs, "ratio": ours / theirs, "all": by_client}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=800)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compression", choices=("lz4", "none"), default="lz4")
    parser.add_argument("--json", metavar="NAME", help="keep the figures as bench/results/NAME.json")
    parser.add_argument("--case", nargs=3, metavar=("WAY", "CLIENT", "ADDRESS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        way, client, address = args.case
        print(CASES[way][client](address, args.records, args.compression))
        return
    result = report(compare(args), args)
    if args.json:
        hardware.save(args.json, result)


if __name__ == "__main__":
    main()
