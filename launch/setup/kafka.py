"""``headrace setup kafka``: the roles' users, the run's topics with their limits, and who may do what.

| user    | may                                                                                                   |
|---------|-------------------------------------------------------------------------------------------------------|
| learner | Read and DescribeConfigs its topic; Write and DescribeConfigs the dead letters; Read its group (where |
|         | it shows its progress); DescribeConfigs the cluster (the brokers' limits)                             |
| actor   | Write and Describe the topic                                                                          |

Nobody may create: topics are made here. Run again, it changes nothing but the salt of the passwords.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from headrace.common.errors import TransportError, UsageError
from headrace.common.pulse import Pulse
from headrace.common.transport import Limits, for_run, kafka_topics
from headrace.common.transport.kafka_address import Address, parse
from headrace.common.transport.kafka_contact import connect, translated
from headrace.launch.config import Config
from headrace.launch.roles import patiently

USERS = ("learner", "actor")
PASSWORD_FILE = "kafka.password"
#: The name under which Kafka knows the cluster as something to have rights on.
_CLUSTER = "kafka-cluster"


def prepare(config: Config, admin: str, secrets: Path, timeout_s: float) -> Iterator[str]:
    """Do it all, at the broker that listens at ``admin`` (host:port) for users that may do anything; yields a line for
    each thing done. Raises :class:`UsageError` and :class:`TransportError`."""
    address, limits = _address(config, admin), Limits(config.transport.record_bytes, config.transport.queue_bytes)
    passwords = {user: _password(secrets / user / PASSWORD_FILE) for user in USERS}
    forever = Pulse(float("inf"))
    opened = patiently(lambda: connect(KafkaAdminClient, address), timeout_s, lambda: False, forever)
    with contextlib.closing(opened) as client, translated(address):
        _make_users(client, address, passwords)
        yield f"{address.brokers[0]}: users {', '.join(USERS)}"
        _allow(client, address, rights(address, f"headrace-{config.run.id}"))
        yield f"{address.where}: what they may do"
    topic = kafka_topics.prepare(address, limits, create=True)
    yield f"{address.where}: {topic.partitions} partitions, records up to {limits.record_bytes:,} bytes; dead letters"


def rights(address: Address, group: str) -> list[ACL]:
    """Who may do what. ``group``: the name under which the learner shows its progress."""
    topic = ResourcePattern(ResourceType.TOPIC, address.topic)
    dead = ResourcePattern(ResourceType.TOPIC, address.dead_topic)
    cluster = ResourcePattern(ResourceType.CLUSTER, _CLUSTER)
    table = (
        ("learner", topic, (ACLOperation.READ, ACLOperation.DESCRIBE_CONFIGS)),
        ("learner", dead, (ACLOperation.WRITE, ACLOperation.DESCRIBE_CONFIGS)),
        ("learner", ResourcePattern(ResourceType.GROUP, group), (ACLOperation.READ,)),
        ("learner", cluster, (ACLOperation.DESCRIBE_CONFIGS,)),
        ("actor", topic, (ACLOperation.WRITE, ACLOperation.DESCRIBE)),
    )
    return [
        ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, resource)
        for user, resource, operations in table
        for operation in operations
    ]


def _address(config: Config, admin: str) -> Address:
    """The run's topic, reached through the listener for setup. Raises :class:`UsageError`."""
    if not config.run.id:
        raise UsageError("setup kafka: run.id is empty; all roles of a run need the same one (--set run.id=NAME)")
    if not config.transport.url.startswith("kafka://"):
        raise UsageError(f"setup kafka: transport.url is {config.transport.url}, which needs none of this")
    address = parse(for_run(config.transport.url, config.run.id))
    return replace(address, brokers=parse(f"kafka://{admin}/{address.topic}").brokers)


def _password(path: Path) -> str:
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: {getattr(error, 'strerror', None) or 'no text'}; run `headrace setup files` first"
        ) from error
    if not found:
        raise UsageError(f"{path}: holds no password; remove it and run `headrace setup files`")
    return found


def _make_users(client: KafkaAdminClient, address: Address, passwords: dict[str, str]) -> None:
    wanted = [UserScramCredentialUpsertion(u, ScramMechanism.SCRAM_SHA_512, p) for u, p in passwords.items()]
    for user, problem in client.alter_user_scram_credentials(wanted).items():
        if problem is not None:
            raise TransportError(f"{address.brokers[0]}: user {user} cannot be made: {problem}")


def _allow(client: KafkaAdminClient, address: Address, acls: Sequence[ACL]) -> None:
    failed = client.create_acls(list(acls))["failed"]
    if failed:
        raise TransportError(
            f"{address.brokers[0]}: rights cannot be given: {failed[0].__name__}; "
            "is authorizer.class.name set at the broker?"
        )
