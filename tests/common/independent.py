"""Kafka seen through another client (confluent-kafka), so that ours is not its own witness."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

__all__ = [
    "NewTopic",
    "add_partitions",
    "admin",
    "allow",
    "allow_login",
    "alter_topic",
    "committed",
    "consume",
    "delete_before",
    "delete_topic",
    "forbid",
    "produce",
    "topic_settings",
]

WAIT_S = 30.0


def produce(
    server: str,
    topic: str,
    values: Iterable[bytes | None],
    key: bytes | None = b"0",
    partition: int = -1,
    headers: list[tuple[str, bytes]] | None = None,
    **settings: object,
) -> None:
    """Put raw values; all are acknowledged on return."""
    producer = Producer({"bootstrap.servers": server, "message.max.bytes": 64 << 20, **settings})
    lost: list[object] = []
    for value in values:
        producer.produce(
            topic, value, key, partition, lambda error, _: lost.append(error) if error else None, headers=headers or []
        )
    assert producer.flush(WAIT_S) == 0
    assert not lost, lost


def consume(server: str, topic: str) -> list[Message]:
    """Everything in the topic now, partition by partition."""
    consumer = Consumer({"bootstrap.servers": server, "group.id": "independent", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions
        missing = 0
        for p in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=WAIT_S)
            missing += high - low
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        got: list[Message] = []
        end = time.monotonic() + WAIT_S
        while len(got) < missing:
            assert time.monotonic() < end, f"{len(got)} of {missing} messages came"
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                got.append(message)
        return sorted(got, key=lambda m: (m.partition(), m.offset()))
    finally:
        consumer.close()


def committed(server: str, topic: str, group: str, partition: int) -> int:
    """The committed offset; -1001 when there is none."""
    consumer = Consumer({"bootstrap.servers": server, "group.id": group})
    try:
        (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=WAIT_S)
        return int(found.offset)
    finally:
        consumer.close()


def topic_settings(server: str, topic: str) -> dict[str, str]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    client = admin(server)
    (described,) = client.describe_configs([resource]).values()
    return {name: entry.value for name, entry in described.result(WAIT_S).items()}


def alter_topic(server: str, topic: str, settings: dict[str, str]) -> None:
    """Returns once the broker shows them: what has answered is the controller, and the broker follows."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    for key, value in settings.items():
        resource.add_incremental_config(ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET))
    client = admin(server)
    for done in client.incremental_alter_configs([resource]).values():
        done.result(WAIT_S)
    end = time.monotonic() + WAIT_S
    while not settings.items() <= topic_settings(server, topic).items():
        assert time.monotonic() < end, f"{topic} did not take {settings}"
        time.sleep(0.02)


def add_partitions(server: str, topic: str, total: int) -> None:
    client = admin(server)
    for done in client.create_partitions([NewPartitions(topic, total)]).values():
        done.result(WAIT_S)


def delete_topic(server: str, topic: str) -> None:
    client = admin(server)  # it must outlive the answer
    for done in client.delete_topics([topic]).values():
        done.result(WAIT_S)


def delete_before(server: str, topic: str, partition: int, offset: int) -> None:
    """Remove the records below ``offset``, as retention does."""
    client = admin(server)
    for done in client.delete_records([TopicPartition(topic, partition, offset)]).values():
        done.result(WAIT_S)


def admin(server: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": server})


def allow_login(server: str, user: str, password: str, mechanism: str) -> None:
    """Let ``user`` log in by ``mechanism``, SCRAM-SHA-256 or SCRAM-SHA-512."""
    info = ScramCredentialInfo(ScramMechanism[mechanism.replace("-", "_")], 4096)
    client = admin(server)
    for made in client.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(user, info, password.encode())]
    ).values():
        made.result(WAIT_S)


def allow(server: str, user: str, right: str, kind: str, name: str) -> None:
    """Give ``user`` a right: e.g. Read on the topic of that name, or DescribeConfigs on the cluster kafka-cluster."""
    rule = AclBinding(*_place(kind, name), f"User:{user}", "*", _operation(right), AclPermissionType.ALLOW)
    client = admin(server)
    for made in client.create_acls([rule]).values():
        made.result(WAIT_S)


def forbid(server: str, user: str, right: str, kind: str, name: str) -> None:
    """Take it away again."""
    rule = AclBindingFilter(*_place(kind, name), f"User:{user}", "*", _operation(right), AclPermissionType.ALLOW)
    client = admin(server)
    for gone in client.delete_acls([rule]).values():
        assert len(gone.result(WAIT_S)) == 1, f"{user} had no right to {right} {kind} {name}"


def _place(kind: str, name: str) -> tuple[ResourceType, str, ResourcePatternType]:
    kinds = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}
    return kinds[kind], name, ResourcePatternType.LITERAL


def _operation(right: str) -> AclOperation:
    return AclOperation[re.sub(r"(?<!^)(?=[A-Z])", "_", right).upper()]
