"""A producer whose unacknowledged bytes are bounded by us: the client library would buffer until memory is full."""

from __future__ import annotations

import contextlib
import os
import time
from threading import Condition
from typing import Any

from kafka import KafkaProducer, errors

from headrace.common.errors import Closed, TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport import kafka_batch
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_client import OVERHEAD_BYTES, REQUEST_TIMEOUT_MS, Address, connect, message_bytes

LINGER_MS = 5
BATCH_BYTES = 8 << 20


class BoundedProducer:
    """Sends records and holds at most ``limits.queue_bytes`` of them unacknowledged (a single larger one excepted).

    A record counts from ``send`` until its acknowledgement or failure. The first failure ends it: every later call
    raises :class:`TransportError` with that cause, because what was lost cannot be told from what was not.
    """

    def __init__(self, address: Address, limits: Limits, metrics: Metrics) -> None:
        self._address, self._limits, self._metrics = address, limits, metrics
        self._pid = os.getpid()
        self._changed = Condition()
        self._unacked_bytes = 0
        self._unacked_records = 0
        self._error: BaseException | None = None
        self._closed = False
        kafka_batch.install()
        self._producer = connect(
            KafkaProducer,
            address,
            acks="all",
            enable_idempotence=True,
            compression_type=address.compression,
            max_request_size=message_bytes(limits) + OVERHEAD_BYTES,
            # One request at a time is under way per partition, so a batch takes much of what waits; but a fetch must
            # hold several, since a reader drops the part of one that did not fit.
            batch_size=min(BATCH_BYTES, message_bytes(limits)),
            linger_ms=LINGER_MS,
            delivery_timeout_ms=address.patience_s * 1000,
            request_timeout_ms=min(REQUEST_TIMEOUT_MS, address.patience_s * 1000 - LINGER_MS),
            max_block_ms=min(address.patience_s, 60) * 1000,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    @property
    def unacked_bytes(self) -> int:
        return self._unacked_bytes

    def send(
        self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]], timeout_s: float | None
    ) -> None:
        """Hand over one record; blocks while the budget is full. Raises :class:`Closed`, or :class:`TransportError`
        when an earlier record was lost or ``timeout_s`` passed."""
        self._reserve(len(value), timeout_s)
        began = time.monotonic()
        try:
            future = self._producer.send(topic, value=value, key=key, headers=headers)
        except errors.KafkaError as error:
            self._settle(len(value), error)
            raise self._failed() from error
        future.add_callback(lambda _: self._acknowledged(len(value), time.monotonic() - began))
        future.add_errback(lambda error: self._settle(len(value), error))

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
        with contextlib.suppress(TransportError):
            self.flush(max(0.0, timeout_s - 0.2))
        self._release(max(0.1, deadline - time.monotonic()))

    def _release(self, timeout_s: float) -> None:
        if self._unacked_records:
            # The library's close() flushes first, and gives up without ending its thread when that takes too long.
            self._metrics.inc("transport_errors_total", self._unacked_records, kind="lost")
            self._producer._sender.force_close()
        try:
            self._producer.close(timeout=timeout_s)
        except errors.KafkaTimeoutError:
            self._metrics.inc("transport_errors_total", kind="close")

    def _reserve(self, nbytes: int, timeout_s: float | None) -> None:
        if os.getpid() != self._pid:
            raise TransportError(f"{self._address.where}: opened in process {self._pid}; open it where it is used")
        with self._changed:
            if not self._fits(nbytes):
                began = time.monotonic()
                ready = self._changed.wait_for(lambda: self._fits(nbytes) or self._closed or self._error, timeout_s)
                self._metrics.inc("transport_blocked_seconds_total", time.monotonic() - began)
            else:
                ready = True
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

    def _acknowledged(self, nbytes: int, took_s: float) -> None:
        self._metrics.observe("transport_ack_seconds", took_s)
        self._metrics.inc("transport_records_total", direction="put")
        self._metrics.inc("transport_bytes_total", nbytes, direction="put")
        self._settle(nbytes, None)

    def _settle(self, nbytes: int, error: BaseException | None) -> None:
        """Runs in the library's thread, or in send() when the library did not take the record."""
        if error is not None:
            self._metrics.inc("transport_errors_total", kind=type(error).__name__)
        with self._changed:
            self._error = self._error or error
            self._count(-nbytes, -1)
            self._changed.notify_all()

    def _count(self, nbytes: int, records: int) -> None:
        self._unacked_bytes += nbytes
        self._unacked_records += records
        self._metrics.set("transport_unacked_bytes", self._unacked_bytes)

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise self._failed() from self._error

    def _failed(self) -> TransportError:
        error = self._error
        hint = ""
        if isinstance(error, errors.MessageSizeTooLargeError):
            hint = f"; set max.message.bytes={message_bytes(self._limits)} at the topic"
        return TransportError(f"{self._address.where}: a record was not delivered: {_line(error)}{hint}")


def _line(error: Any) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
