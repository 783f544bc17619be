"""What a login may do (its ACLs), and the line that names what it may not.

    learner     Read and DescribeConfigs topic T; Write and DescribeConfigs topic T.dead; Read group headrace-<run.id>
    actor       Write topic T
    whoever makes the topics    Create topic T, T.dead

Read and Write include Describe. Without DescribeConfigs a role goes on, and says what it could not check.
"""

from __future__ import annotations

from typing import Any

from kafka import errors

from headrace.common.errors import UsageError
from headrace.common.transport.kafka_address import Address

READ, WRITE, CREATE = "Read", "Write", "Create"


def missing(address: Address, right: str, kind: str, name: str) -> str:
    """The line: who may not do what, and the command that allows it. ``kind``: topic or group."""
    who = f"the login of {address.user!r}" if address.user else "who does not log in"
    return (
        f"{address.where}: {who} may not {right} {kind} {name!r}; allow it: kafka-acls.sh --bootstrap-server "
        f"{address.brokers[0]} --add --allow-principal User:{address.user or 'ANONYMOUS'} --operation {right} "
        f"--{kind} {name}"
    )


def check(address: Address, topic: dict[str, Any], right: str) -> None:
    """``topic``: as a broker described it to this login. Raises :class:`UsageError` where the right is missing."""
    allowed = topic.get("authorized_operations")  # None: of an older broker
    unseen = topic["error_code"] == errors.TopicAuthorizationFailedError.errno
    if unseen or (allowed is not None and right.upper() not in allowed):
        raise UsageError(missing(address, right, "topic", topic["name"]))
