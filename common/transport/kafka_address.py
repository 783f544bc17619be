"""``kafka://host:port/topic?option=value``: what every Kafka client of ours is made from, the login and sizes included.

What is secret comes from the environment (:data:`LOGIN`), or from a file that it names, and is never part of an
address, a log line or an error message. Settings have kafka-python's names; kafka_confluent.py translates them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.common.errors import UsageError
from headrace.common.pem import check_authority, check_pair
from headrace.common.secret_file import read_secrets
from headrace.common.transport.base import Limits

#: Room beside the encoded record: batch and record headers, the key, and the headers of a dead letter.
OVERHEAD_BYTES = 64 << 10
#: How long the first contact with a broker may take.
CONNECT_TIMEOUT_S = 8.0

#: Settings of the login, by kafka-python's names: the variable of the environment, and the option of the address that
#: goes before it ("": none, since it is nobody else's business).
LOGIN = {
    "security_protocol": ("KAFKA_SECURITY_PROTOCOL", "security"),
    "sasl_mechanism": ("KAFKA_SASL_MECHANISM", "sasl"),
    "sasl_plain_username": ("KAFKA_SASL_USERNAME", ""),
    "sasl_plain_password": ("KAFKA_SASL_PASSWORD", ""),
    "ssl_cafile": ("KAFKA_SSL_CAFILE", "cafile"),
    "ssl_certfile": ("KAFKA_SSL_CERTFILE", "certfile"),
    "ssl_keyfile": ("KAFKA_SSL_KEYFILE", "keyfile"),
    "ssl_password": ("KAFKA_SSL_PASSWORD", ""),
    "api_version": ("KAFKA_API_VERSION", "api_version"),
}
#: Secrets that may stand in a file: the path is then in the variable of that name with _FILE behind it.
SECRETS = ("sasl_plain_password", "ssl_password")
_OPTIONS = {option: setting for setting, (_, option) in LOGIN.items() if option}


class Secret(str):
    """Text that does not show itself: the client library prints its whole configuration when it logs at DEBUG."""

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Address:
    """A parsed address. ``patience_s``: how long a broker that was there may be away before we give up on it.

    ``replication`` -1 leaves it to the broker. ``retention_s`` and ``retention_bytes`` (per partition) are used when
    the topic is made. ``client``: the file of its library. ``login``: its settings, but for the secrets that stand in
    ``secret_files`` (setting -> file).
    """

    brokers: tuple[str, ...]
    topic: str
    partitions: int = 4
    replication: int = -1
    retention_s: int = 1800
    retention_bytes: int = 2 << 30
    compression: bool = True
    patience_s: int = 120
    client: str = "kafka_python"
    login: Mapping[str, Any] = field(default_factory=dict, repr=False)
    secret_files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def dead_topic(self) -> str:
        return f"{self.topic}.dead"

    @property
    def where(self) -> str:
        """For messages: brokers and topic, nothing secret."""
        return f"kafka://{','.join(self.brokers)}/{self.topic}"

    @property
    def user(self) -> str:
        """Who logs in; "" where nobody does."""
        return str(self.login.get("sasl_plain_username", ""))

    def full_login(self) -> dict[str, Any]:
        """``login`` with the secrets, read anew: they may have been replaced. Raises :class:`UsageError` for a file
        that holds none."""
        read = {key: Secret(*read_secrets(path, _file_variable(key))) for key, path in self.secret_files.items()}
        return {**self.login, **read}


def parse(url: str) -> Address:
    """The address in ``url``, completed from the environment. Raises :class:`UsageError` saying what is wrong."""
    parts = urlsplit(url)
    form = "kafka://host:port[,host:port]/topic[?partitions=N]"
    if "@" in parts.netloc:
        raise UsageError("kafka address: no login in the address; set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD_FILE")
    brokers = tuple(parts.netloc.split(","))
    for broker in brokers:
        host = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", broker)
        if not host or not 0 < int(host[2]) < 65536:
            raise UsageError(f"kafka address {url!r}: {broker!r} is no host:port; the form is {form}")
    topic = unquote(parts.path.strip("/"))
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,200}", topic) or topic in (".", ".."):
        raise UsageError(f"kafka address {url!r}: {topic!r} is no topic name; the form is {form}")
    login: dict[str, Any] = {key: os.environ[name] for key, (name, _) in LOGIN.items() if name in os.environ}
    own: dict[str, Any] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in _OPTIONS:
            login[_OPTIONS[key]] = value
        elif key == "compression":
            own[key] = _choice(key, value, {"lz4": True, "none": False})
        elif key == "client":
            own[key] = _choice(key, value, {"kafka-python": "kafka_python", "confluent": "kafka_confluent"})
        elif key in ("partitions", "replication", "retention_s", "retention_bytes", "patience_s"):
            own[key] = _positive(key, value)
        else:
            fields = Address.__dataclass_fields__.keys() - {"brokers", "topic", "login", "secret_files"}
            known = ", ".join(sorted({*_OPTIONS, *fields}))
            raise UsageError(f"kafka address: unknown option {key!r}; known are {known}")
    if own.get("client") == "kafka_confluent" and importlib.util.find_spec("confluent_kafka") is None:
        raise UsageError("kafka address: client=confluent needs confluent-kafka: pip install 'headrace[confluent]'")
    files = _secret_files(login)
    address = Address(brokers, topic, login=_checked_login(login, files), secret_files=files, **own)
    address.full_login()  # what cannot be read is said here, before anything is tried
    return address


def _file_variable(setting: str) -> str:
    return f"{LOGIN[setting][0]}_FILE"


def _secret_files(login: Mapping[str, Any]) -> dict[str, Path]:
    files = {key: os.environ[_file_variable(key)] for key in SECRETS if _file_variable(key) in os.environ}
    for key, path in files.items():
        if key in login:
            raise UsageError(f"kafka: {LOGIN[key][0]} and {_file_variable(key)} are both set; set one of them")
        if not path:
            raise UsageError(f"kafka: {_file_variable(key)} is empty; it must name the file with the secret")
    return {key: Path(path) for key, path in files.items()}


def _positive(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"kafka address: {key}={value} must be a whole number above 0")
    return int(value)


def _choice(key: str, value: str, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise UsageError(f"kafka address: {key}={value} must be one of {', '.join(choices)}")
    return choices[value]


def _checked_login(login: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    if (version := login.get("api_version")) is not None:
        if not re.fullmatch(r"\d+(\.\d+){1,2}", version):
            raise UsageError(f"kafka: api_version {version!r} must look like 2.8")
        login["api_version"] = tuple(map(int, version.split(".")))
    protocol = login.setdefault("security_protocol", _protocol_for(login))
    _choice("security", protocol, dict.fromkeys(("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")))
    if protocol.startswith("SASL"):
        mechanism = login.setdefault("sasl_mechanism", "SCRAM-SHA-512")
        _choice("sasl", mechanism, dict.fromkeys(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")))
        for key in ("sasl_plain_username", "sasl_plain_password"):
            if key not in login and key not in files:
                name = _file_variable(key) if key in SECRETS else LOGIN[key][0]
                raise UsageError(f"kafka: {protocol} needs a login; set {name} in the environment")
    for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        if key in login and not os.path.isfile(login[key]):
            raise UsageError(f"kafka: {key} {login[key]!r} is no file")
    _check_pem(login, files)
    for key in SECRETS:
        if key in login:
            login[key] = Secret(login[key])
    return login


def _check_pem(login: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Raises :class:`UsageError` for certificates that cannot be right; what a password guards is the library's."""
    cafile, cert, key = (login.get(setting) for setting in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"))
    if cafile:
        check_authority(Path(cafile), LOGIN["ssl_cafile"][0])
    if cert and key and "ssl_password" not in {*login, *files}:
        names = (LOGIN["ssl_certfile"][0], LOGIN["ssl_keyfile"][0])
        check_pair(Path(cert), Path(key), *names, ssl.Purpose.CLIENT_AUTH)


def _protocol_for(login: Mapping[str, Any]) -> str:
    """Of who did not say: nothing that was given for the purpose is left unused."""
    if {"sasl_mechanism", "sasl_plain_username"} & login.keys():
        return "SASL_SSL"
    return "SSL" if any(key.startswith("ssl_") for key in login) else "PLAINTEXT"


def message_bytes(limits: Limits) -> int:
    """The largest record batch that may travel; the one number all limits of clients, topics and brokers follow."""
    return limits.record_bytes + OVERHEAD_BYTES
