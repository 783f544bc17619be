"""The topics: made by the learner with limits that fit, waited for by actors, checked by both."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.common.errors import UsageError
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_address import OVERHEAD_BYTES, Address, message_bytes
from headrace.common.transport.kafka_contact import connect, translated

TOPIC_TIMEOUT_S = 30.0
DEAD_RETENTION_S = 7 * 24 * 3600
DEAD_RETENTION_BYTES = 256 << 20
#: Without the first a batch of 100 kB may unpack to gigabytes, in the reader; with it the broker unpacks, and refuses
#: what is over max.message.bytes. Without the second an actor's clock decides whether a record is taken and when
#: retention removes it; with it the broker's does.
INSISTED = {"compression.type": "uncompressed", "message.timestamp.type": "LogAppendTime"}


@dataclass(frozen=True, slots=True)
class Topic:
    """``id``: the broker's for this life of the topic ("" where it has none). ``letter_bytes``: the largest value that
    its dead-letter topic takes."""

    partitions: int
    id: str
    letter_bytes: int


def prepare(address: Address, limits: Limits, create: bool) -> Topic:
    """What is known of ``address.topic``, once it is there and can carry ``limits``.

    ``create``: make it, and its dead-letter topic, when missing. Otherwise wait up to :data:`TOPIC_TIMEOUT_S` for it.
    Raises :class:`UsageError` when no broker answers, the topic does not appear, a size limit is too small, or its
    settings are not those of :data:`INSISTED`.
    """
    need = message_bytes(limits)
    with contextlib.closing(connect(KafkaAdminClient, address)) as admin, translated(address):
        if create:
            _create(admin, address, limits)
        topic = _wait(admin, address)
        dead = _check(admin, address, topic, need, create) or need + OVERHEAD_BYTES
        letter_bytes = max(min(dead - OVERHEAD_BYTES, need), 512)
        return Topic(len(topic["partitions"]), str(topic.get("topic_id") or ""), letter_bytes)


def _create(admin: KafkaAdminClient, address: Address, limits: Limits) -> None:
    present = {topic["name"] for topic in admin.describe_topics([address.topic, address.dead_topic]) if _found(topic)}
    for name, new in wanted(address, limits).items():
        if name not in present:
            try:
                admin.create_topics({name: new})
            except errors.TopicAlreadyExistsError:
                pass  # another rank of the learner was faster
            except errors.InvalidReplicationFactorError as error:
                raise UsageError(f"{address.where}: replication={address.replication}: {error.description}") from error


def wanted(address: Address, limits: Limits) -> dict[str, dict[str, Any]]:
    """What the topics are made with: name -> number of partitions, of copies, and settings."""
    need = message_bytes(limits)
    return {
        address.topic: _new(address, address.partitions, need, address.retention_s, address.retention_bytes),
        address.dead_topic: _new(address, 1, need + OVERHEAD_BYTES, DEAD_RETENTION_S, DEAD_RETENTION_BYTES),
    }


def _new(address: Address, partitions: int, max_message: int, retention_s: int, retention_bytes: int) -> dict[str, Any]:
    return {
        "num_partitions": partitions,
        "replication_factor": address.replication,
        "configs": {
            "max.message.bytes": str(max_message),
            "retention.ms": str(retention_s * 1000),
            "retention.bytes": str(retention_bytes),
            # Retention removes whole segments: small enough to be removed in time, large enough to be few.
            "segment.bytes": str(max(max_message, min(128 << 20, retention_bytes // 8), 1 << 20)),
            "cleanup.policy": "delete",
            **INSISTED,
        },
    }


def _wait(admin: KafkaAdminClient, address: Address) -> dict[str, Any]:
    """The topic's metadata, once every partition has a leader."""
    deadline = time.monotonic() + TOPIC_TIMEOUT_S
    while True:
        (topic,) = admin.describe_topics([address.topic])
        leaders = [int(p["leader_id"]) for p in topic["partitions"]] if _found(topic) else []
        if leaders and min(leaders) >= 0:
            return dict(topic)
        if time.monotonic() > deadline:
            problem = "has partitions without a leader" if leaders else "is not there; the learner makes it"
            raise UsageError(f"{address.where}: the topic {problem} (waited {TOPIC_TIMEOUT_S:.0f} s)")
        time.sleep(0.1)


def _found(topic: dict[str, Any]) -> bool:
    return bool(topic["error_code"] == 0)


def _check(admin: KafkaAdminClient, address: Address, topic: dict[str, Any], need: int, create: bool) -> int | None:
    """Compare the settings in force at topic and brokers with what a record may need. Returns the dead-letter topic's
    limit where it may be asked."""
    if "api_version" in address.login:
        return None  # what cannot be asked for its version is no whole broker, and cannot be asked for its limits
    brokers = sorted({str(p["leader_id"]) for p in topic["partitions"]})
    try:
        found = _values(admin, ConfigResourceType.TOPIC, address.topic, "max.message.bytes", *INSISTED)
        nodes = [_values(admin, ConfigResourceType.BROKER, node, "socket.request.max.bytes") for node in brokers]
        dead = _values(admin, ConfigResourceType.TOPIC, address.dead_topic, "max.message.bytes") if create else {}
    except (errors.AuthorizationError, errors.UnsupportedVersionError, errors.IncompatibleBrokerVersion):
        return None  # not everybody may ask; then the first record that is too large says it
    if int(found.get("max.message.bytes", need)) < need:
        raise UsageError(
            f"{address.where}: the topic takes messages up to {found['max.message.bytes']} bytes, a record may need "
            f"{need}; set max.message.bytes={need} at the topic (or message.max.bytes at the broker), or make records "
            "smaller"
        )
    for node, values in zip(brokers, nodes, strict=True):
        if int(values.get("socket.request.max.bytes", need)) < need:
            raise UsageError(
                f"{address.where}: broker {node} takes requests up to {values['socket.request.max.bytes']} bytes, a "
                f"record may need {need}; set socket.request.max.bytes above {need}, or make records smaller"
            )
    if wrong := {key: found[key] for key, value in INSISTED.items() if found.get(key, value) != value}:
        has = ", ".join(f"{key}={value}" for key, value in wrong.items())
        wanted = ",".join(f"{key}={INSISTED[key]}" for key in wrong)
        raise UsageError(
            f"{address.where}: the topic has {has}, by which an actor could end or starve the learner; alter it: "
            f"kafka-configs.sh --bootstrap-server {address.brokers[0]} --alter --entity-type topics "
            f"--entity-name {address.topic} --add-config {wanted}"
        )
    return int(dead["max.message.bytes"]) if "max.message.bytes" in dead else None


def _values(admin: KafkaAdminClient, kind: Any, name: str, *keys: str) -> dict[str, str]:
    described = admin.describe_configs([ConfigResource(kind, name, dict.fromkeys(keys))], config_filter="all")
    values = {key: described[kind.name.lower()][name].get(key, {}).get("value") for key in keys}
    return {key: value for key, value in values.items() if value is not None}
