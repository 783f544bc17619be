"""confluent-kafka (librdkafka) behind the contract of kafka_client.py, for those who fill a GPU with images."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import wait
from functools import partial
from threading import Event, Thread
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from headrace.common.errors import TransportError, UsageError
from headrace.common.reloaded import Reloaded
from headrace.common.transport import kafka_client, kafka_rights
from headrace.common.transport.base import Limits, Position
from headrace.common.transport.kafka_address import CONNECT_TIMEOUT_S, Address, message_bytes

#: Our settings (kafka-python's names) under the names of librdkafka, where dots do not make the one of the other.
_NAMES = {
    "max_request_size": "message.max.bytes",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
}
_KINDS = {
    KafkaError.MSG_SIZE_TOO_LARGE: "too_large",
    KafkaError.INVALID_TIMESTAMP: "timestamp",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "forbidden",
}
_OUT_OF_RANGE = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION)
_DAMAGED = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG, KafkaError._NOT_IMPLEMENTED)

logger = logging.getLogger("confluent_kafka")
logger.addHandler(logging.NullHandler())  # as kafka-python does: what matters is raised, or counted


class Producer:
    def __init__(self, address: Address, limits: Limits, letters: bool) -> None:
        settings = kafka_client.producer_settings(address, limits, letters)
        self._producer = confluent_kafka.Producer(
            {
                **_settings(address, settings),
                # A machine that is gone without a word answers nothing; the library would wait 60 s for it.
                "socket.timeout.ms": settings["request_timeout_ms"],
                "compression.type": "none",
                # kafka_sink.py bounds what waits; the library's own bound must not come first.
                "queue.buffering.max.kbytes": (limits.queue_bytes + 2 * message_bytes(limits) >> 10) + 1024,
                "partitioner": "murmur2_random",  # a key has its partition whatever the client
            },
            logger=logger,
        )
        self._login = _Login(self._producer, address)
        self._closing = Event()
        self._thread = Thread(target=self._serve, name="kafka-acknowledgements", daemon=True)
        self._thread.start()

    def send(
        self, topic: str, key: bytes, value: bytes, headers: kafka_client.Headers, done: kafka_client.Done
    ) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            done(None if error is None else _undelivered(error))

        try:
            self._producer.produce(topic, value, key, headers=headers, on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            raise _undelivered(error.args[0]) from error

    def close(self, timeout_s: float) -> None:
        self._producer.purge()
        self._closing.set()
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        while not self._closing.is_set() or len(self._producer):
            self._login.renew()
            self._producer.poll(0.1)


class Consumer:
    def __init__(self, address: Address, limits: Limits, group: str) -> None:
        self._address, self._group_refused = address, False
        settings = kafka_client.consumer_settings(limits, group)
        fetch_bytes = settings["fetch_max_bytes"]
        self._consumer = confluent_kafka.Consumer(
            {
                **_settings(address, settings),
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                # Off: on a mismatch librdkafka 2.16 may abort the process. The codec's CRC covers a record.
                "check.crcs": False,
                "receive.message.max.bytes": fetch_bytes + (1 << 20),
                "queued.max.messages.kbytes": 2 * fetch_bytes >> 10,
                "fetch.queue.backoff.ms": 10,
            },
            logger=logger,
        )
        # Questions go over a connection of their own: on the consumer's each would wait behind a fetch for records that
        # do not come, half a second, and nothing be read meanwhile.
        soon = {"socket_timeout_ms": int(kafka_client.ASK_TIMEOUT_S * 1000)}
        self._questions = AdminClient(_settings(address, soon), logger=logger)
        self._logins = [_Login(client, address) for client in (self._consumer, self._questions)]

    def assign(self, position: Position) -> None:
        with self._asking():
            self._consumer.assign([self._tp(p, offset) for p, offset in position.items()])

    def poll(self, timeout_s: float, max_records: int) -> list[kafka_client.Record]:
        """One at a time, which this library is quick at: its value is used while it is in the processor's cache."""
        with self._asking():
            if (message := self._consumer.poll(timeout_s)) is None:
                return []
            if (error := message.error()) is not None:
                if error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    raise KafkaException(error)
                self._group_refused = True  # it has looked for the group; reading does not need it
                return []
            return [_record(message)]

    def begins(self) -> dict[int, int]:
        return self._offsets(OffsetSpec.earliest())

    def ends(self) -> dict[int, int]:
        return self._offsets(OffsetSpec.latest())

    def commit(self, position: Position) -> None:
        if self._group_refused:
            raise kafka_client.GroupRefused
        offsets = [self._tp(p, o) for p, o in position.items()]
        with self._asking():
            try:
                commit = partial(self._consumer.commit, offsets=offsets, asynchronous=False)
                kafka_client.within(kafka_client.ASK_TIMEOUT_S, commit, "a commit")  # it has no deadline of its own
            except KafkaException as raised:
                if raised.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    raise
                raise kafka_client.GroupRefused from raised

    def close(self, timeout_s: float) -> None:
        kafka_client.close_within(self._consumer.close, timeout_s)

    def _tp(self, partition: int, offset: int = -1) -> TopicPartition:
        return TopicPartition(self._address.topic, partition, offset)

    def _offsets(self, which: OffsetSpec) -> dict[int, int]:
        name, timeout_s = self._address.topic, kafka_client.ASK_TIMEOUT_S
        with self._asking():
            for login in self._logins:
                login.renew()
            self._questions.poll(0)  # what the library has to say waits for this
            topic = self._questions.list_topics(name, timeout=timeout_s).topics[name]
            if topic.error is not None and topic.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise KafkaException(topic.error)  # poll() may never hear of it
            if not topic.partitions:
                raise kafka_client.Unreachable("the broker does not say what partitions the topic has")
            wanted = {self._tp(p): which for p in sorted(topic.partitions)}
            answers = self._questions.list_offsets(wanted, request_timeout=timeout_s)
            if wait(answers.values(), timeout_s).not_done:  # the library has been seen to take a minute
                raise kafka_client.Unreachable(f"no answer within {timeout_s:.0f} s to where the log ends")
            return {tp.partition: answer.result().offset for tp, answer in answers.items()}

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as raised:
            error = raised.args[0]
            if error.code() in _DAMAGED:
                raise kafka_client.Damaged(error.str()) from raised
            if error.code() in _OUT_OF_RANGE:
                raise kafka_client.OutOfRange(error.str()) from raised
            if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                said = kafka_rights.missing(self._address, kafka_rights.READ, "topic", self._address.topic)
                raise UsageError(said) from raised
            if error.fatal():
                raise TransportError(f"{self._address.where}: {error.name()}: {error.str()}") from raised
            raise kafka_client.Unreachable(f"{error.name()}: {error.str()}") from raised


class _Login:
    """Hands a password that was replaced in its file to the library, which uses it at its next login."""

    def __init__(self, client: Any, address: Address) -> None:
        self._client = client
        self._read = Reloaded(list(address.secret_files.values()), address.full_login)
        self._used = self._read.now()

    def renew(self) -> None:
        if (login := self._read.now()) is not self._used and "sasl_plain_password" in login:
            self._used = login
            self._client.set_sasl_credentials(login["sasl_plain_username"], login["sasl_plain_password"])


def _settings(address: Address, more: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"bootstrap_servers": ",".join(address.brokers), "reconnect_backoff_max_ms": 1000}
    # For a handshake that is never answered, which the library would give 30 s.
    settings["socket_connection_setup_timeout_ms"] = int(CONNECT_TIMEOUT_S * 1000)
    settings |= {key: value for key, value in address.full_login().items() if key != "api_version"} | more
    return {_NAMES.get(key, key.replace("_", ".")): value for key, value in settings.items()}


def _record(m: Message) -> kafka_client.Record:
    return kafka_client.Record(m.partition(), m.offset(), m.key() or b"", m.value() or b"", m.headers() or [])


def _undelivered(error: Any) -> kafka_client.Undelivered:
    if not isinstance(error, KafkaError):
        return kafka_client.Undelivered(type(error).__name__, str(error))
    return kafka_client.Undelivered(_KINDS.get(error.code(), error.name()), f"{error.name()}: {error.str()}")
