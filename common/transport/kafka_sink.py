"""The writing half: records are encoded, keyed by their actor so that they keep their order, and sent by a producer
whose unacknowledged bytes are bounded by us; one client library would buffer until memory is full."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from threading import Condition

from headrace.common.codec import encode
from headrace.common.errors import Closed, HeadraceError, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport import kafka_rights
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_address import Address, message_bytes, parse
from headrace.common.transport.kafka_client import Headers, Undelivered, open_producer
from headrace.common.transport.kafka_topics import prepare
from headrace.common.types import Trajectory

#: Names the run of a record, so that other runs on the topic need not decode it.
RUN_HEADER = "run"
_HINTS = {
    "too_large": "set max.message.bytes={need} at the topic",
    "timestamp": "this machine's clock is off; set message.timestamp.type=LogAppendTime at the topic",
}


class BoundedProducer:
    """Sends records and holds at most ``limits.queue_bytes`` of them unacknowledged (a single larger one excepted).

    A record counts from ``send`` until its acknowledgement or failure. The first failure ends it: every later call
    raises :class:`TransportError` with that cause, because what was lost cannot be told from what was not. With
    ``lost`` each record stands for itself: a failure is handed to it and costs no other record.
    """

    def __init__(
        self, address: Address, limits: Limits, metrics: Metrics, lost: Callable[[Undelivered], None] | None = None
    ) -> None:
        self._address, self._limits, self._metrics = address, limits, metrics
        self._lost = lost or self._failed
        self._pid = os.getpid()
        self._changed = Condition()
        self._unacked_bytes = 0
        self._unacked_records = 0
        self._error: Undelivered | None = None
        self._closed = False
        self._producer = open_producer(address, limits, letters=lost is not None)

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers, timeout_s: float | None) -> bool:
        """Hand over one record; blocks while the budget is full. Raises :class:`Closed`, :class:`TransportError` when
        a record was lost or ``timeout_s`` passed, :class:`UsageError` where the login may not write. False where
        ``lost`` was told of this record at once."""
        self._reserve(len(value), timeout_s)
        began = time.monotonic()

        def done(error: Undelivered | None) -> None:
            if error is None:
                self._metrics.observe("transport_ack_seconds", time.monotonic() - began)
                self._metrics.inc("transport_records_total", direction="put")
                self._metrics.inc("transport_bytes_total", len(value), direction="put")
            self._settle(len(value), error)

        try:
            self._producer.send(topic, key, value, headers, done)
        except Undelivered as error:
            self._settle(len(value), error)
            self._raise_if_failed()
            return False
        return True

    def flush(self, timeout_s: float) -> None:
        """Wait until everything sent is acknowledged. Raises :class:`TransportError` if it is not, or not in time."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._unacked_records == 0 or self._error, timeout_s)
            self._raise_if_failed()
            if not done:
                raise TransportError(
                    f"{self._address.where}: {self._unacked_records} records ({self._unacked_bytes} bytes) not "
                    f"acknowledged within {timeout_s:.1f} s"
                )

    def close(self, timeout_s: float) -> None:
        """Flush, then release everything within ``timeout_s``. What was not acknowledged is counted as errors of kind
        "lost"."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(HeadraceError):
            self.flush(max(0.0, timeout_s - 0.2))
        self._metrics.inc("transport_errors_total", self._unacked_records, kind="lost")
        self._producer.close(max(0.1, deadline - time.monotonic()))

    def _reserve(self, nbytes: int, timeout_s: float | None) -> None:
        if os.getpid() != self._pid:
            raise TransportError(f"{self._address.where}: opened in process {self._pid}; open it where it is used")
        with self._changed:
            if not (ready := self._fits(nbytes)):
                began = time.monotonic()
                ready = self._changed.wait_for(
                    lambda: self._fits(nbytes) or self._closed or self._error is not None, timeout_s
                )
                self._metrics.inc("transport_blocked_seconds_total", time.monotonic() - began)
            self._raise_if_failed()
            if self._closed:
                raise Closed(f"{self._address.where}: closed")
            if not ready:
                raise TransportError(
                    f"{self._address.where}: {self._unacked_bytes} bytes wait for the broker, no room for {nbytes} "
                    f"more within {timeout_s:.1f} s"
                )
            self._count(nbytes, 1)

    def _fits(self, nbytes: int) -> bool:
        return self._unacked_bytes + nbytes <= self._limits.queue_bytes or self._unacked_records == 0

    def _settle(self, nbytes: int, error: Undelivered | None) -> None:
        """Runs in a thread of the library, or in send() when the library did not take the record."""
        if error is not None:
            self._lost(error)
        with self._changed:
            self._count(-nbytes, -1)
            self._changed.notify_all()

    def _failed(self, error: Undelivered) -> None:
        if not self._closed:
            self._metrics.inc("transport_errors_total", kind=error.kind)
        self._error = self._error or error

    def _count(self, nbytes: int, records: int) -> None:
        self._unacked_bytes += nbytes
        self._unacked_records += records
        self._metrics.set("transport_unacked_bytes", self._unacked_bytes)

    def _raise_if_failed(self) -> None:
        if (error := self._error) is not None:
            if error.kind == "forbidden":
                said = kafka_rights.missing(self._address, kafka_rights.WRITE, "topic", self._address.topic)
                raise UsageError(said) from error
            hint = _HINTS.get(error.kind, "").format(need=message_bytes(self._limits))
            raise TransportError(
                f"{self._address.where}: a record was not delivered: {error}{hint and '; ' + hint}"
            ) from error


class KafkaSink(BoundedProducer):
    """See :class:`headrace.common.transport.base.Sink`. Waits for the topic; raises :class:`UsageError` without it."""

    def __init__(self, url: str, limits: Limits, metrics: Metrics, key: str) -> None:
        address = parse(url)
        self._key = key.encode()
        prepare(address, limits, create=False)
        super().__init__(address, limits, metrics)

    def put(self, trajectory: Trajectory, timeout_s: float | None = None) -> None:
        record = encode(trajectory, self._limits.record_bytes, self._address.compression)
        self.send(self._address.topic, self._key, record, [(RUN_HEADER, trajectory.run_id.encode())], timeout_s)
