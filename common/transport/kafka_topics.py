"""The topics: made by the learner with limits that fit, waited for by actors, checked by both."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.common.errors import UsageError
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_client import OVERHEAD_BYTES, Address, connect, message_bytes, translated

TOPIC_TIMEOUT_S = 30.0
DEAD_RETENTION_S = 7 * 24 * 3600
DEAD_RETENTION_BYTES = 256 << 20


def prepare(address: Address, limits: Limits, create: bool) -> int:
    """Return the number of partitions of ``address.topic``, once it is there and can carry ``limits``.

    ``create``: make it, and its dead-letter topic, when missing. Otherwise wait up to :data:`TOPIC_TIMEOUT_S` for it.
    Raises :class:`UsageError` when no broker answers, the topic does not appear, or a size limit is too small.
    """
    with contextlib.closing(connect(KafkaAdminClient, address)) as admin, translated(address):
        if create:
            _create(admin, address, limits)
        leaders = _wait(admin, address)
        _check(admin, address, leaders, message_bytes(limits))
        return len(leaders)


def _create(admin: KafkaAdminClient, address: Address, limits: Limits) -> None:
    present = {topic["name"] for topic in admin.describe_topics([address.topic, address.dead_topic]) if _found(topic)}
    wanted = {
        address.topic: _new(
            address, address.partitions, message_bytes(limits), address.retention_s, address.retention_bytes
        ),
        address.dead_topic: _new(
            address, 1, message_bytes(limits) + OVERHEAD_BYTES, DEAD_RETENTION_S, DEAD_RETENTION_BYTES
        ),
    }
    for name, new in wanted.items():
        if name not in present:
            try:
                admin.create_topics({name: new})
            except errors.TopicAlreadyExistsError:
                pass  # another rank of the learner was faster
            except errors.InvalidReplicationFactorError as error:
                raise UsageError(f"{address.where}: replication={address.replication}: {error.description}") from error


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
            "compression.type": "producer",
            "cleanup.policy": "delete",
        },
    }


def _wait(admin: KafkaAdminClient, address: Address) -> list[int]:
    """The leader of every partition, once they all have one."""
    deadline = time.monotonic() + TOPIC_TIMEOUT_S
    while True:
        (topic,) = admin.describe_topics([address.topic])
        partitions = topic["partitions"] if _found(topic) else []
        leaders = [int(p["leader_id"]) for p in partitions]
        if leaders and min(leaders) >= 0:
            return leaders
        if time.monotonic() > deadline:
            problem = "has partitions without a leader" if partitions else "is not there; the learner makes it"
            raise UsageError(f"{address.where}: the topic {problem} (waited {TOPIC_TIMEOUT_S:.0f} s)")
        time.sleep(0.1)


def _found(topic: dict[str, Any]) -> bool:
    return bool(topic["error_code"] == 0)


def _check(admin: KafkaAdminClient, address: Address, leaders: list[int], need: int) -> None:
    """Compare the limits in force at topic and brokers with what a record may need."""
    if "api_version" in address.client:
        return  # what cannot be asked for its version is no whole broker, and cannot be asked for its limits
    brokers = sorted({str(leader) for leader in leaders})
    try:
        topic = _values(admin, ConfigResourceType.TOPIC, address.topic, "max.message.bytes")
        nodes = [_values(admin, ConfigResourceType.BROKER, node, "socket.request.max.bytes") for node in brokers]
    except (errors.AuthorizationError, errors.UnsupportedVersionError, errors.IncompatibleBrokerVersion):
        return  # not everybody may ask; then the first record that is too large says it
    if topic is not None and topic < need:
        raise UsageError(
            f"{address.where}: the topic takes messages up to {topic} bytes, a record may need {need}; set "
            f"max.message.bytes={need} at the topic (or message.max.bytes at the broker), or make records smaller"
        )
    for node, value in zip(brokers, nodes, strict=True):
        if value is not None and value < need:
            raise UsageError(
                f"{address.where}: broker {node} takes requests up to {value} bytes, a record may need {need}; "
                f"set socket.request.max.bytes above {need}, or make records smaller"
            )


def _values(admin: KafkaAdminClient, kind: Any, name: str, key: str) -> int | None:
    described = admin.describe_configs([ConfigResource(kind, name, {key: None})], config_filter="all")
    value = described[kind.name.lower()][name].get(key, {}).get("value")
    return None if value is None else int(value)
