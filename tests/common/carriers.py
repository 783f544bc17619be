"""The carriers under contract, one row each. A carrier is what test_transport_contract.py passes with."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from pathlib import Path

from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, Sink, Source, open_sink, open_source
from headrace.common.transport.local_sink import LocalSink

from ..broker import kind
from . import independent

#: Small, so that budgets are reached quickly.
LIMITS = Limits(record_bytes=256 << 10, queue_bytes=512 << 10)


class Carrier(ABC):
    """How to reach one carrier in a test. Each test has an address (path, topic) of its own.

    ``has_log``: records outlive their reader, ``put`` does not wait for one, and positions mean something.
    ``fixture``: of pytest, whose value is where the carrier's server is.
    """

    has_log = False
    fixture: str | None = None

    def __init__(self, folder: Path, server: str = "") -> None:
        self.server = server
        self.folder = folder
        self.source_metrics = Metrics("learner")
        self.sink_metrics = Metrics("actor")
        self._sources: list[Source] = []
        self._sinks: list[Sink] = []

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def poison(self, data: bytes) -> None:
        """Put raw bytes where a record belongs."""

    @abstractmethod
    def dead_letters(self) -> list[tuple[str, bytes]]:
        """(reason, bytes) of the records kept so far."""

    @abstractmethod
    def end(self) -> None:
        """Make what a sink puts into go away for good."""

    def source(self, limits: Limits = LIMITS) -> Source:
        source = open_source(
            self.url,
            limits=limits,
            metrics=self.source_metrics,
            dead_letter=self.folder / "dead_letter",
            group="test",
            run_id="run",
        )
        self._sources.append(source)
        return source

    def sink(self, limits: Limits = LIMITS, key: str = "0") -> Sink:
        sink = open_sink(self.url, limits=limits, metrics=self.sink_metrics, key=key)
        self._sinks.append(sink)
        return sink

    def close(self) -> None:
        for sink in self._sinks:
            sink.close(timeout_s=0.1)
        for source in self._sources:
            source.close()


class LocalCarrier(Carrier):
    @property
    def url(self) -> str:
        return f"local://{self.folder}/trajectories.sock"

    def poison(self, data: bytes) -> None:
        sink = self.sink()
        assert isinstance(sink, LocalSink)
        sink.put_frame([data], timeout_s=5)

    def dead_letters(self) -> list[tuple[str, bytes]]:
        index = self.folder / "dead_letter" / "index.jsonl"
        lines = [json.loads(line) for line in index.read_text().splitlines()] if index.exists() else []
        return [(line["reason"], (index.parent / line["file"]).read_bytes()) for line in lines]

    def end(self) -> None:
        self._sources[-1].close()


class KafkaCarrier(Carrier):
    has_log = True
    fixture = "kafka_bootstrap"

    def __init__(self, folder: Path, server: str) -> None:
        super().__init__(folder, server)
        self.topic = f"contract-{uuid.uuid4().hex[:12]}"
        if kind() == "mock":
            for topic in (self.topic, f"{self.topic}.dead"):
                independent.admin(server).list_topics(topic, timeout=30)  # the mock makes what it is asked for

    client = "kafka-python"

    @property
    def url(self) -> str:
        return f"kafka://{self.server}/{self.topic}?partitions=3&client={self.client}"

    def poison(self, data: bytes) -> None:
        independent.produce(self.server, self.topic, [data], key=b"0")

    def dead_letters(self) -> list[tuple[str, bytes]]:
        letters = independent.consume(self.server, f"{self.topic}.dead")
        return [(dict(letter.headers() or [])["reason"].decode(), letter.value() or b"") for letter in letters]

    def end(self) -> None:
        independent.delete_topic(self.server, self.topic)


class ConfluentCarrier(KafkaCarrier):
    client = "confluent"


CARRIERS: dict[str, type[Carrier]] = {"local": LocalCarrier, "kafka": KafkaCarrier, "kafka-confluent": ConfluentCarrier}
