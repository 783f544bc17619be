"""kafka-python behind the contract of kafka_client.py, used as its documentation says."""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.structs import OffsetAndMetadata

from headrace.common.errors import TransportError, UsageError
from headrace.common.transport.base import Limits, Position
from headrace.common.transport.kafka_address import (
    CONNECT_TIMEOUT_S,
    LINGER_MS,
    OVERHEAD_BYTES,
    REQUEST_TIMEOUT_MS,
    Address,
    message_bytes,
)
from headrace.common.transport.kafka_client import (
    ASK_TIMEOUT_S,
    BATCH_BYTES,
    FETCH_BYTES,
    Damaged,
    Headers,
    OutOfRange,
    Record,
    Undelivered,
    Unreachable,
    close_within,
)

#: At DEBUG these print every request, the one with the password too; with a login they stay at INFO.
LOGGERS_OF_REQUESTS = ("kafka.protocol.parser", "kafka.net.connection")

METADATA_MAX_AGE_MS = 30_000  # partitions that are added to the topic are seen so soon
NOWHERE = 2**62  # an offset that no log reaches

_AWAY = (errors.RetriableError, errors.KafkaTimeoutError, errors.KafkaConnectionError)
_OUT_OF_RANGE = (errors.OffsetOutOfRangeError, errors.LogTruncationError)
#: What reading a batch raises whose bytes changed, wherever they did.
_DAMAGED = (errors.CorruptRecordError, errors.UnsupportedCodecError, struct.error, ValueError, IndexError)
_KINDS = {
    "MessageSizeTooLargeError": "too_large",
    "RecordListTooLargeError": "too_large",
    "InvalidTimestampError": "timestamp",
}


class PythonProducer:
    """See :class:`headrace.common.transport.kafka_client.Producer`."""

    def __init__(self, address: Address, limits: Limits, letters: bool) -> None:
        patience_ms = address.patience_s * 1000
        self._producer = connect(
            KafkaProducer,
            address,
            acks="all",
            enable_idempotence=not letters,
            max_request_size=message_bytes(limits) + OVERHEAD_BYTES,
            batch_size=1 if letters else min(BATCH_BYTES, message_bytes(limits)),
            linger_ms=0 if letters else LINGER_MS,
            delivery_timeout_ms=patience_ms,
            request_timeout_ms=min(REQUEST_TIMEOUT_MS, patience_ms - LINGER_MS),
            max_block_ms=min(patience_ms, 5_000 if letters else 60_000),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def send(
        self, topic: str, key: bytes, value: bytes, headers: Headers, done: Callable[[Undelivered | None], None]
    ) -> None:
        try:
            future = self._producer.send(topic, value=value, key=key, headers=headers)
        except errors.KafkaError as error:
            raise _undelivered(error) from error
        future.add_callback(lambda _: done(None))
        future.add_errback(lambda error: done(_undelivered(error)))

    def close(self, timeout_s: float) -> None:
        # The library flushes first and cannot be told to give up; what is left ends at its delivery timeout.
        close_within(self._producer.close, timeout_s)


class PythonConsumer:
    """See :class:`headrace.common.transport.kafka_client.Consumer`."""

    def __init__(self, address: Address, limits: Limits, group: str) -> None:
        self._address = address
        self._damaged = False
        fetch_bytes = max(FETCH_BYTES, 2 * message_bytes(limits))
        self._consumer = connect(
            KafkaConsumer,
            address,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=fetch_bytes,
            fetch_max_bytes=fetch_bytes,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def assign(self, position: Position) -> None:
        with self._asking():
            self._consumer.assign([self._tp(p) for p in position])
            if self._damaged:
                # The library goes on with the half-read answer of an offset that it is at: it must have been elsewhere.
                for p in position:
                    self._consumer.seek(self._tp(p), NOWHERE)
                with contextlib.suppress(errors.KafkaError):
                    self._consumer.poll(timeout_ms=0)
                self._damaged = False
            for p, offset in position.items():
                self._consumer.seek(self._tp(p), offset)

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        try:
            with self._asking():
                polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except _DAMAGED as error:
            self._damaged = True
            raise Damaged(_line(error)) from error
        return [
            Record(tp.partition, r.offset, r.key or b"", r.value or b"", r.headers)
            for tp, records in polled.items()
            for r in records
        ]

    def begins(self) -> dict[int, int]:
        return self._offsets(self._consumer.beginning_offsets)

    def ends(self) -> dict[int, int]:
        return self._offsets(self._consumer.end_offsets)

    def has_topic(self) -> bool:
        with self._asking():
            return self._address.topic in self._consumer.topics()

    def commit(self, position: Position) -> None:
        with self._asking():
            offsets = {self._tp(p): OffsetAndMetadata(offset, "", -1) for p, offset in position.items()}
            self._consumer.commit(offsets, timeout_ms=int(ASK_TIMEOUT_S * 1000))

    def close(self, timeout_s: float) -> None:
        close_within(lambda: self._consumer.close(autocommit=False, timeout_ms=int(timeout_s * 1000)), timeout_s)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._address.topic, partition)

    def _offsets(self, ask: Callable[..., dict[TopicPartition, int]]) -> dict[int, int]:
        with self._asking():
            partitions = self._consumer.partitions_for_topic(self._address.topic)
            if not partitions:
                raise Unreachable("the broker does not say what partitions the topic has")
            answer = ask([self._tp(p) for p in sorted(partitions)], timeout_ms=int(ASK_TIMEOUT_S * 1000))
            return {tp.partition: offset for tp, offset in answer.items()}

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGED:
            raise
        except _OUT_OF_RANGE as error:
            raise OutOfRange(_line(error)) from error
        except _AWAY as error:
            raise Unreachable(_line(error)) from error
        except errors.KafkaError as error:
            raise TransportError(f"{self._address.where}: {_line(error)}") from error


def connect(make: Any, address: Address, **more: Any) -> Any:
    """A client of the library, made by ``make``; raises :class:`UsageError` when that is not possible.

    A constructor of the library that fails leaves its thread and its sockets behind; here they are closed.
    """
    if address.login["security_protocol"].startswith("SASL"):
        for name in LOGGERS_OF_REQUESTS:
            logging.getLogger(name).setLevel(logging.INFO)
    opened: list[Any] = []

    def kept(**configs: Any) -> Any:
        opened.append(make.DEFAULT_CONFIG["kafka_client"](**configs))
        return opened[-1]

    settings = {
        **address.login,
        "bootstrap_servers": list(address.brokers),
        "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000),
        "reconnect_backoff_max_ms": 1000,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    try:
        with translated(address):
            return make(**{**settings, **more}, kafka_client=kept)
    except BaseException:
        for client in opened:
            client.close()
        raise


@contextlib.contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn what a first contact may raise into one line for a person."""
    heard = _Overheard()
    logging.getLogger("kafka").addHandler(heard)
    try:
        yield
    except errors.AuthorizationError as error:
        raise UsageError(f"{address.where}: the login is not allowed to do this: {error}") from error
    except (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError) as error:
        raise UsageError(f"{address.where}: security settings and broker do not fit: {error}") from error
    except (errors.SaslAuthenticationFailedError, *_AWAY) as error:
        raise UsageError(f"{address.where}: {_no_contact(address, [*heard.errors, error])}") from error
    except errors.KafkaError as error:
        raise TransportError(f"{address.where}: {_line(error)}") from error
    finally:
        logging.getLogger("kafka").removeHandler(heard)


class _Overheard(logging.Handler):
    """The library tries again until its time is up, and tells only its log why: keeps the errors logged meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[Exception] = []

    def emit(self, record: logging.LogRecord) -> None:
        args = record.args if isinstance(record.args, tuple) else ()
        self.errors = [*self.errors[-20:], *(arg for arg in args if isinstance(arg, Exception))]


def _no_contact(address: Address, heard: list[Exception]) -> str:
    right = f"is security={address.login['security_protocol']} right?"
    login = f"the login of {address.login.get('sasl_plain_username')!r}"
    if address.login["security_protocol"].startswith("SASL"):
        right = f"check {login} (KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD), and {right}"
    said = " ".join(map(str, heard))
    if any(isinstance(e, errors.SaslAuthenticationFailedError) for e in heard):
        return f"the broker refuses {login}; check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        trusted = address.login.get("ssl_cafile", "the authorities that this system trusts")
        return f"the broker's certificate is not trusted: {trusted} did not sign it; set cafile= or KAFKA_SSL_CAFILE"
    if "disconnected" in said or "Handshake failed" in said:
        return f"the broker ends the connection; {right}"
    return f"no broker answers within {CONNECT_TIMEOUT_S:.0f} s; is it running (headrace broker status), and {right}"


def _undelivered(error: BaseException) -> Undelivered:
    name = type(error).__name__
    return Undelivered(_KINDS.get(name, name), _line(error))


def _line(error: BaseException) -> str:
    text = str(error).splitlines()
    name = type(error).__name__
    return text[0] if text and name in text[0] else f"{name}: {text[0]}" if text else name
