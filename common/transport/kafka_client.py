"""What every Kafka client of ours is made from: the address, the login, the sizes, and the translation of errors.

An address may carry options: ``kafka://host:9092/topic?partitions=4&security=SASL_SSL&cafile=ca.pem``. What is secret
comes from the environment (:data:`ENVIRONMENT`) and is never part of an address, a log line or an error message.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from kafka import errors

from headrace.common.errors import TransportError, UsageError
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_net import net_client

#: Room beside the encoded record: batch and record headers, the key, and the headers of a dead letter.
OVERHEAD_BYTES = 64 << 10
#: How long the first contact with a broker may take.
CONNECT_TIMEOUT_S = 8.0
REQUEST_TIMEOUT_MS = 15_000

#: At DEBUG these print every request, the one with the password too; with a login they stay at INFO.
LOGGERS_OF_REQUESTS = ("kafka.protocol.parser", "kafka.net.connection")

#: Client settings that come from the environment: variable -> setting.
ENVIRONMENT = {
    "KAFKA_SECURITY_PROTOCOL": "security_protocol",
    "KAFKA_SASL_MECHANISM": "sasl_mechanism",
    "KAFKA_SASL_USERNAME": "sasl_plain_username",
    "KAFKA_SASL_PASSWORD": "sasl_plain_password",
    "KAFKA_SSL_CAFILE": "ssl_cafile",
    "KAFKA_SSL_CERTFILE": "ssl_certfile",
    "KAFKA_SSL_KEYFILE": "ssl_keyfile",
    "KAFKA_SSL_PASSWORD": "ssl_password",
    "KAFKA_API_VERSION": "api_version",
}
_QUERY = {
    "security": "security_protocol",
    "sasl": "sasl_mechanism",
    "cafile": "ssl_cafile",
    "certfile": "ssl_certfile",
    "keyfile": "ssl_keyfile",
    "api_version": "api_version",
}


class Secret(str):
    """Text that does not show itself: the client library prints its whole configuration when it logs at DEBUG."""

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Address:
    """A parsed address. ``patience_s``: how long a broker that was there may be away before we give up on it.

    ``replication`` -1 leaves it to the broker. ``retention_s`` and ``retention_bytes`` (per partition) are used when
    the topic is made. ``client``: settings for the client library, the secret ones included.
    """

    brokers: tuple[str, ...]
    topic: str
    partitions: int = 4
    replication: int = -1
    retention_s: int = 1800
    retention_bytes: int = 2 << 30
    compression: str | None = "lz4"
    patience_s: int = 120
    client: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def dead_topic(self) -> str:
        return f"{self.topic}.dead"

    @property
    def where(self) -> str:
        """For messages: brokers and topic, nothing secret."""
        return f"kafka://{','.join(self.brokers)}/{self.topic}"


def parse(url: str) -> Address:
    """The address in ``url``, completed from the environment. Raises :class:`UsageError` saying what is wrong."""
    parts = urlsplit(url)
    form = "kafka://host:port[,host:port]/topic[?partitions=N]"
    if "@" in parts.netloc:
        raise UsageError("kafka address: no login in the address; set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
    brokers = tuple(parts.netloc.split(","))
    for broker in brokers:
        host = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", broker)
        if not host or not 0 < int(host[2]) < 65536:
            raise UsageError(f"kafka address {url!r}: {broker!r} is no host:port; the form is {form}")
    topic = unquote(parts.path.strip("/"))
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,200}", topic) or topic in (".", ".."):
        raise UsageError(f"kafka address {url!r}: {topic!r} is no topic name; the form is {form}")
    client: dict[str, Any] = {key: os.environ[name] for name, key in ENVIRONMENT.items() if name in os.environ}
    own: dict[str, Any] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in _QUERY:
            client[_QUERY[key]] = value
        elif key == "compression":
            own[key] = _choice(key, value, {"lz4": "lz4", "none": None})
        elif key in ("partitions", "replication", "retention_s", "retention_bytes", "patience_s"):
            own[key] = _positive(key, value)
        else:
            known = ", ".join(sorted({*_QUERY, *Address.__dataclass_fields__} - {"brokers", "topic", "client"}))
            raise UsageError(f"kafka address: unknown option {key!r}; known are {known}")
    return Address(brokers, topic, client=_checked_client(client), **own)


def _positive(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"kafka address: {key}={value} must be a whole number above 0")
    return int(value)


def _choice(key: str, value: str, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise UsageError(f"kafka address: {key}={value} must be one of {', '.join(choices)}")
    return choices[value]


def _checked_client(client: dict[str, Any]) -> dict[str, Any]:
    if (version := client.get("api_version")) is not None:
        if not re.fullmatch(r"\d+(\.\d+){1,2}", version):
            raise UsageError(f"kafka: api_version {version!r} must look like 2.8")
        client["api_version"] = tuple(map(int, version.split(".")))
    protocol = client.setdefault("security_protocol", "SASL_SSL" if "sasl_mechanism" in client else "PLAINTEXT")
    _choice("security", protocol, dict.fromkeys(("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")))
    if protocol.startswith("SASL"):
        mechanism = client.setdefault("sasl_mechanism", "SCRAM-SHA-512")
        _choice("sasl", mechanism, dict.fromkeys(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")))
        for name in ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"):
            if ENVIRONMENT[name] not in client:
                raise UsageError(f"kafka: {protocol} needs a login; set {name} in the environment")
    for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        if key in client and not os.path.isfile(client[key]):
            raise UsageError(f"kafka: {key} {client[key]!r} is no file")
    for key in ("sasl_plain_password", "ssl_password"):
        if key in client:
            client[key] = Secret(client[key])
    return client


def message_bytes(limits: Limits) -> int:
    """The largest record batch that may travel; the one number all limits of clients, topics and brokers follow.

    Compression cannot break it: a batch that does not get smaller is sent as it is.
    """
    return limits.record_bytes + OVERHEAD_BYTES


def settings(address: Address) -> dict[str, Any]:
    """Settings common to every client: who to call, how to log in, how long to try."""
    return {
        **address.client,
        "bootstrap_servers": list(address.brokers),
        "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000),
        "reconnect_backoff_max_ms": 1000,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }


def connect(make: Callable[..., Any], address: Address, **more: Any) -> Any:
    """A client of the library, made by ``make``; raises :class:`UsageError` when that is not possible.

    A constructor of the library that fails leaves its thread and its sockets behind; here they are closed.
    """
    if address.client["security_protocol"].startswith("SASL"):
        for name in LOGGERS_OF_REQUESTS:
            logging.getLogger(name).setLevel(logging.INFO)
    opened: list[Any] = []

    def kept(**configs: Any) -> Any:
        opened.append(net_client(**configs))
        return opened[-1]

    try:
        with translated(address):
            return make(**{**settings(address), **more}, kafka_client=kept)
    except BaseException:
        for client in opened:
            client.close()
        raise


@contextlib.contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn what a first contact may raise into one line for a person."""
    try:
        yield
    except errors.SaslAuthenticationFailedError as error:
        raise UsageError(
            f"{address.where}: the broker refuses the login of {address.client.get('sasl_plain_username')!r}; "
            "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
        ) from error
    except errors.AuthorizationError as error:
        raise UsageError(f"{address.where}: the login is not allowed to do this: {error}") from error
    except (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError) as error:
        raise UsageError(f"{address.where}: security settings and broker do not fit: {error}") from error
    except (errors.KafkaTimeoutError, errors.KafkaConnectionError) as error:
        raise UsageError(
            f"{address.where}: no broker answers within {CONNECT_TIMEOUT_S:.0f} s; is it running (headrace broker "
            f"status), and is security={address.client['security_protocol']} right?"
        ) from error
    except errors.KafkaError as error:
        raise TransportError(f"{address.where}: {type(error).__name__}: {error}") from error
