"""A training by real roles through a Kafka that asks everybody for a login and has given each just the rights of
SECURITY.md's table; and the roles' one line when something of it is not right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_address import parse
from headrace.common.transport.kafka_topics import prepare
from tests.common import independent
from tests.common.kafka_streams import GUARDED, Served
from tests.faults.run import Run, assert_nothing_twice_nothing_late
from tests.ports import free_ports

TOPIC = "guarded"


@pytest.fixture(scope="module")
def guarded(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    broker = Served(tmp_path_factory.mktemp("guarded") / "broker", *free_ports(4), **GUARDED)
    for user in ("learner", "actor"):
        independent.allow_login(broker.bootstrap, user, f"{user} horse", "SCRAM-SHA-512")
    yield broker
    broker.kill()


def env(broker: Served, folder: Path, user: str, password: str = "") -> dict[str, str]:
    """What the role of that name finds in its environment."""
    file = folder / f"{user}.password"
    file.write_text(password or f"{user} horse")
    return {
        "KAFKA_SASL_USERNAME": user,
        "KAFKA_SASL_PASSWORD_FILE": str(file),
        "KAFKA_SSL_CAFILE": str(broker.cert),
    }


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_training_with_the_least_rights(
    new_run: Callable[..., Run], guarded: Served, tmp_path: Path, client: str
) -> None:
    topic = f"{TOPIC}-{client}"
    run = new_run("ppo", f"transport.url='kafka://{guarded.secure}/{topic}?client={client}'", "run.total_steps=4_000",
                  "transport.record_bytes=262144")  # fmt: skip
    prepare(parse(f"kafka://{guarded.bootstrap}/{topic}"), Limits(262144), create=True)
    for right in (("learner", "Read", "topic", topic), ("learner", "DescribeConfigs", "topic", topic),
                  ("learner", "Write", "topic", f"{topic}.dead"),
                  ("learner", "DescribeConfigs", "topic", f"{topic}.dead"),
                  ("learner", "Read", "group", f"headrace-{run.config.run.id}"),
                  ("learner", "DescribeConfigs", "cluster", "kafka-cluster"),
                  ("actor", "Write", "topic", topic)):  # fmt: skip
        independent.allow(guarded.bootstrap, *right)
    run.role("paramserver")
    actor = run.role("actor", "--index", "0", env=env(guarded, tmp_path, "actor"))
    learner = run.role("learner", "--episodes", "0", env=env(guarded, tmp_path, "learner"))
    code, said = run.end(learner)
    assert (code, said) == (0, "")
    code, said = run.end(actor)
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if "DescribeConfigs" in line]
    assert f"has no right DescribeConfigs on topic {topic}, broker 1: limits and settings there are not checked" in line
    assert_nothing_twice_nothing_late(run)


def test_roles_that_may_not_or_are_not_who_they_say_end_with_one_line(
    new_run: Callable[..., Run], guarded: Served, tmp_path: Path
) -> None:
    topic = f"{TOPIC}-nobody"
    url = f"transport.url='kafka://{guarded.secure}/{topic}'"
    for role, right in (("learner", "Read"), ("actor", "Write")):
        run = new_run("ppo", url, "transport.record_bytes=262144", name=role)
        code, said = run.end(run.role(role, env=env(guarded, tmp_path, role)))
        assert code == 2, said
        assert said.count("\n") == 1, said
        assert f"the login of {role!r} may not {right} topic {topic!r}; allow it: kafka-acls.sh" in said
    code, said = run.end(run.role("actor", env=env(guarded, tmp_path, "actor", "wrong")))
    assert code == 2, said
    assert said.count("\n") == 1, said
    assert "the login of 'actor'" in said  # "the broker refuses ...", or what its hanging up may mean: both come
    assert "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD_FILE" in said
    nothing = env(guarded, tmp_path, "actor") | {"KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "none")}
    code, said = run.end(run.role("actor", env=nothing))
    assert code == 2, said
    assert f"KAFKA_SASL_PASSWORD_FILE {tmp_path}/none: No such file or directory\n" in said
