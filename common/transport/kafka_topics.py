"""The topics: made by the learner with limits that fit, unless somebody else has; waited for by actors, checked by
both."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.common.errors import UsageError
from headrace.common.transport import kafka_rights
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_address import OVERHEAD_BYTES, Address, message_bytes
from headrace.common.transport.kafka_contact import connect, translated
from headrace.common.waiting import Waiting

logger = logging.getLogger(__name__)

#: As long as a role waits for a parameter server that is not there yet: roles may be started in any order.
TOPIC_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 0.2
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

    ``create``: we read it, and make it and its dead-letter topic when they are missing and we may. Otherwise we write,
    and wait up to :data:`TOPIC_TIMEOUT_S` for it. Raises :class:`UsageError` when no broker answers, the login may not
    do what it is for, the topic does not appear, a size limit is too small, or its settings are not those of
    :data:`INSISTED`.
    """
    need = message_bytes(limits)
    with contextlib.closing(connect(KafkaAdminClient, address)) as admin, translated(address, has_answered=True):
        if create:
            _create(admin, address, limits)
        topic = _wait(admin, address, address.topic, kafka_rights.READ if create else kafka_rights.WRITE)
        if create:
            _wait(admin, address, address.dead_topic, kafka_rights.WRITE)
        dead = _check(admin, address, topic, need, create) or need + OVERHEAD_BYTES
        letter_bytes = max(min(dead - OVERHEAD_BYTES, need), 512)
        return Topic(len(topic["partitions"]), str(topic.get("topic_id") or ""), letter_bytes)


def is_there(address: Address) -> bool:
    """Is there such a topic? Asked over a connection of its own, whose answer is news of the broker, not of a client
    that was in use when something went wrong. Raises what a first contact raises."""
    with contextlib.closing(connect(KafkaAdminClient, address)) as admin, translated(address, has_answered=True):
        (topic,) = admin.describe_topics([address.topic])
        return bool(topic["error_code"] != errors.UnknownTopicOrPartitionError.errno)


def _create(admin: KafkaAdminClient, address: Address, limits: Limits) -> None:
    """Make what is missing. Where that is not allowed, somebody else does: it is waited for."""
    rights = {address.topic: kafka_rights.READ, address.dead_topic: kafka_rights.WRITE}
    described = {topic["name"]: topic for topic in admin.describe_topics(list(rights))}
    for name, right in rights.items():
        kafka_rights.check(address, described[name], right)
    new = wanted(address, limits)
    for name in (name for name in new if not _found(described[name])):
        try:
            admin.create_topics({name: new[name]})
        except errors.TopicAlreadyExistsError:
            pass  # another rank of the learner was faster
        except errors.InvalidReplicationFactorError as error:
            raise UsageError(f"{address.where}: replication={address.replication}: {error.description}") from error
        except errors.AuthorizationError:
            unallowed = kafka_rights.missing(address, kafka_rights.CREATE, "topic", name)
            logger.warning("%s; waits up to %.0f s for somebody else to make it", unallowed, TOPIC_TIMEOUT_S)


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


def _wait(admin: KafkaAdminClient, address: Address, name: str, right: str) -> dict[str, Any]:
    """A topic's metadata, once every partition has a leader. Raises :class:`UsageError` without ``right`` on it."""
    began_s, waiting = time.monotonic(), Waiting(address.where, math.inf)
    while True:
        (topic,) = admin.describe_topics([name])
        kafka_rights.check(address, topic, right)
        leaders = [int(p["leader_id"]) for p in topic["partitions"]] if _found(topic) else []
        if leaders and min(leaders) >= 0:
            return dict(topic)
        problem = "has partitions without a leader" if leaders else "is not there; the learner, or setup, makes it"
        if time.monotonic() - began_s > TOPIC_TIMEOUT_S:
            raise UsageError(f"{address.where}: the topic {name} {problem} (waited {TOPIC_TIMEOUT_S:.0f} s)")
        waiting.goes_on(began_s, f"the topic {name} {problem}")
        time.sleep(_LOOK_EVERY_S)


def _found(topic: dict[str, Any]) -> bool:
    return bool(topic["error_code"] == 0)


def _check(admin: KafkaAdminClient, address: Address, topic: dict[str, Any], need: int, create: bool) -> int | None:
    """Compare the settings in force at topic and brokers with what a record may need. Returns the dead-letter topic's
    limit where it may be asked. What may not be asked is said, and not checked."""
    if "api_version" in address.login:
        return None  # what cannot be asked for its version is no whole broker, and cannot be asked for its limits
    untold: list[str] = []

    def told(kind: ConfigResourceType, name: str, *keys: str) -> dict[str, str]:
        values = _values(admin, kind, name, *keys)
        if not values:
            untold.append(f"{kind.name.lower()} {name}")
        return values

    try:
        found = told(ConfigResourceType.TOPIC, address.topic, "max.message.bytes", *INSISTED)
        dead = told(ConfigResourceType.TOPIC, address.dead_topic, "max.message.bytes") if create else {}
        nodes = {
            node: told(ConfigResourceType.BROKER, node, "socket.request.max.bytes")
            for node in sorted({str(p["leader_id"]) for p in topic["partitions"]})
        }
    except (errors.UnsupportedVersionError, errors.IncompatibleBrokerVersion):
        return None  # too old to be asked; then the first record that is too large says it
    if untold:
        who = f"the login of {address.user!r} has no right DescribeConfigs on" if address.user else "nobody tells us of"
        logger.warning("%s: %s %s: limits and settings there are not checked", address.where, who, ", ".join(untold))
    _check_topic(address, found, need)
    for node, values in nodes.items():
        if int(values.get("socket.request.max.bytes", need)) < need:
            raise UsageError(
                f"{address.where}: broker {node} takes requests up to {values['socket.request.max.bytes']} bytes, a "
                f"record may need {need}; set socket.request.max.bytes above {need}, or make records smaller"
            )
    return int(dead["max.message.bytes"]) if "max.message.bytes" in dead else None


def _check_topic(address: Address, found: dict[str, str], need: int) -> None:
    if int(found.get("max.message.bytes", need)) < need:
        raise UsageError(
            f"{address.where}: the topic takes messages up to {found['max.message.bytes']} bytes, a record may need "
            f"{need}; set max.message.bytes={need} at the topic (or message.max.bytes at the broker), or make records "
            "smaller"
        )
    if wrong := {key: found[key] for key, value in INSISTED.items() if found.get(key, value) != value}:
        has = ", ".join(f"{key}={value}" for key, value in wrong.items())
        wanted = ",".join(f"{key}={INSISTED[key]}" for key in wrong)
        raise UsageError(
            f"{address.where}: the topic has {has}, by which an actor could end or starve the learner; alter it: "
            f"kafka-configs.sh --bootstrap-server {address.brokers[0]} --alter --entity-type topics "
            f"--entity-name {address.topic} --add-config {wanted}"
        )


def _values(admin: KafkaAdminClient, kind: Any, name: str, *keys: str) -> dict[str, str]:
    described = admin.describe_configs([ConfigResource(kind, name, dict.fromkeys(keys))], config_filter="all")
    values = {key: described.get(kind.name.lower(), {}).get(name, {}).get(key, {}).get("value") for key in keys}
    return {key: value for key, value in values.items() if value is not None}
