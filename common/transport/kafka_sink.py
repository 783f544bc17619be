"""The writing half: one actor's fragments, encoded and keyed by the actor so that they keep their order."""

from __future__ import annotations

from headrace.common.codec import encode
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_address import parse
from headrace.common.transport.kafka_producer import BoundedProducer
from headrace.common.transport.kafka_topics import prepare
from headrace.common.types import Trajectory

#: Names the run of a record, so that other runs on the topic need not decode it.
RUN_HEADER = "run"


class KafkaSink:
    """See :class:`headrace.common.transport.base.Sink`. Waits for the topic; raises :class:`UsageError` without it."""

    def __init__(self, url: str, limits: Limits, metrics: Metrics, key: str) -> None:
        self._address = parse(url)
        self._limits = limits
        self._key = key.encode()
        prepare(self._address, limits, create=False)
        self._producer = BoundedProducer(self._address, limits, metrics)

    def put(self, trajectory: Trajectory, timeout_s: float | None = None) -> None:
        record = encode(trajectory, self._limits.record_bytes, self._address.compression)
        headers = [(RUN_HEADER, trajectory.run_id.encode())]
        self._producer.send(self._address.topic, self._key, record, headers, timeout_s)

    @property
    def unacked_bytes(self) -> int:
        """Bytes put and not acknowledged yet; never above ``limits.queue_bytes``."""
        return self._producer.unacked_bytes

    def flush(self, timeout_s: float) -> None:
        self._producer.flush(timeout_s)

    def close(self, timeout_s: float) -> None:
        self._producer.close(timeout_s)
