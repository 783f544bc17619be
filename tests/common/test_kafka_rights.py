"""kafka:// where everybody has just the rights that SECURITY.md gives it, on a broker that asks: what is missing is
named in one line, and what need not be there is not needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.common.transport import Sink, Source, kafka_topics
from headrace.common.transport.kafka_address import parse
from headrace.common.transport.kafka_topics import prepare
from tests.ports import free_ports

from ..certificates import replace
from . import independent
from .kafka_streams import GUARDED, LIMITS, Served, Stream, put, receive, seqs, wait_for
from .samples import trajectory

PASSWORDS = {"learner": "learner horse", "actor": "actor horse"}
GROUP = "test"


@pytest.fixture(scope="module")
def guarded(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("guarded") / "broker", *free_ports(4), **GUARDED)
    for user, password in PASSWORDS.items():
        independent.allow_login(made.bootstrap, user, password, "SCRAM-SHA-512")
    yield made
    made.kill()


class Roles:
    """A topic that an administrator made, a learner and an actor with their rights on it."""

    def __init__(self, broker: Served, client: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.broker, self._folder, self._patch = broker, folder, patch
        options = f"&security=SASL_SSL&cafile={broker.cert}"
        self.stream = Stream(broker.secure, options=options, client=client)
        self.topic, self.dead = self.stream.topic, f"{self.stream.topic}.dead"
        self.rights = {
            ("learner", "Read", "topic", self.topic), ("learner", "DescribeConfigs", "topic", self.topic),
            ("learner", "Write", "topic", self.dead), ("learner", "DescribeConfigs", "topic", self.dead),
            ("learner", "Read", "group", GROUP), ("learner", "DescribeConfigs", "cluster", "kafka-cluster"),
            ("actor", "Write", "topic", self.topic),
        }  # fmt: skip
        for right in self.rights:
            self.allow(*right)
        for user, password in PASSWORDS.items():
            replace(self.password_file(user), f"{password}\n")

    def make_topics(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("KAFKA_SASL_USERNAME", raising=False)
            patch.delenv("KAFKA_SASL_PASSWORD_FILE", raising=False)
            prepare(parse(f"kafka://{self.broker.bootstrap}/{self.topic}?partitions=1"), LIMITS, create=True)

    def password_file(self, user: str) -> Path:
        return self._folder / f"{user}.password"

    def be(self, user: str) -> None:
        self._patch.setenv("KAFKA_SASL_USERNAME", user)
        self._patch.setenv("KAFKA_SASL_PASSWORD_FILE", str(self.password_file(user)))

    def source(self) -> Source:
        self.be("learner")
        return self.stream.source()

    def sink(self) -> Sink:
        self.be("actor")
        return self.stream.sink()

    def allow(self, *right: str) -> None:
        independent.allow(self.broker.bootstrap, *right)

    def forbid(self, *right: str) -> None:
        independent.forbid(self.broker.bootstrap, *right)
        self.rights.discard(right)  # type: ignore[arg-type]

    def line(self, user: str, right: str, kind: str, name: str) -> str:
        """How a missing right is named, and how to give it."""
        server = self.stream.server
        return (
            f"kafka://{server}/{self.topic}: the login of {user!r} may not {right} {kind} {name!r}; allow it: "
            f"kafka-acls.sh --bootstrap-server {server} --add --allow-principal User:{user} --operation {right} "
            f"--{kind} {name}"
        )

    def close(self) -> None:
        self.stream.close()
        for right in list(self.rights):
            self.forbid(*right)


@pytest.fixture
def roles(guarded: Served, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Roles]:
    made = Roles(guarded, client, tmp_path, monkeypatch)
    made.make_topics()
    yield made
    made.close()


def refused(call: Callable[[], object]) -> str:
    """The line of the refusal that ``call`` comes to in the end."""
    with pytest.raises(UsageError) as caught:
        [call() for _ in iter(int, 1)]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we said; clients that earlier tests left to die say something as well."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("headrace.")]


def test_the_rights_of_the_table_are_enough_and_what_may_not_be_asked_is_said(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    source = roles.source()
    assert ours(caplog) == []
    sink = roles.sink()
    (line,) = ours(caplog)
    assert "the login of 'actor' has no right DescribeConfigs on topic " in line
    assert line.endswith(": limits and settings there are not checked")
    put(sink, *range(5))
    independent.produce(roles.broker.bootstrap, roles.topic, [b"poison"])
    put(sink, 5)
    got = receive(source, 6)
    assert seqs(got) == list(range(6))
    source.commit({0: got[-1].next_offset})
    wait_for(lambda: independent.committed(roles.broker.bootstrap, roles.topic, GROUP, 0) == 7)
    wait_for(lambda: len(independent.consume(roles.broker.bootstrap, roles.dead)) == 1)
    assert roles.stream.metrics.value("transport_errors_total", kind="dead_letter") == 0
    assert [line for line in ours(caplog) if "may not" in line] == []


@pytest.mark.parametrize(
    ("user", "right", "place"),
    [("learner", "Read", "topic"), ("learner", "Write", "dead"), ("actor", "Write", "topic")],
)
def test_a_right_that_is_missing_at_the_start_is_one_line(roles: Roles, user: str, right: str, place: str) -> None:
    name = getattr(roles, place)
    roles.forbid(user, right, "topic", name)
    start = roles.source if user == "learner" else roles.sink
    assert refused(start) == roles.line(user, right, "topic", name)
    roles.allow(user, "Describe", "topic", name)  # it sees the topic, and that is all
    roles.rights.add((user, "Describe", "topic", name))
    assert refused(start) == roles.line(user, right, "topic", name)


def test_a_learner_that_may_not_read_any_more_says_so(roles: Roles) -> None:
    source, sink = roles.source(), roles.sink()
    put(sink, 0)
    receive(source, 1)
    roles.forbid("learner", "Read", "topic", roles.topic)
    assert refused(lambda: source.get(0.2)) == roles.line("learner", "Read", "topic", roles.topic)


def test_an_actor_that_may_not_write_any_more_says_so(roles: Roles) -> None:
    source, sink = roles.source(), roles.sink()
    put(sink, 0)
    roles.forbid("actor", "Write", "topic", roles.topic)

    def put_one() -> None:
        sink.put(trajectory(1), timeout_s=10)
        sink.flush(30)

    assert refused(put_one) == roles.line("actor", "Write", "topic", roles.topic)
    assert seqs(receive(source, 1)) == [0]


def test_letters_that_may_not_be_written_any_more_are_said_and_counted(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    source, sink = roles.source(), roles.sink()
    roles.forbid("learner", "Write", "topic", roles.dead)
    independent.produce(roles.broker.bootstrap, roles.topic, [b"poison"])
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]
    line = roles.line("learner", "Write", "topic", roles.dead)
    wait_for(lambda: [said for said in ours(caplog) if line in said])
    wait_for(lambda: roles.stream.metrics.value("transport_errors_total", kind="dead_letter") == 1)


def test_without_its_group_a_learner_reads_on_and_says_once_that_progress_is_not_shown(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    roles.forbid("learner", "Read", "group", GROUP)
    source, sink = roles.source(), roles.sink()
    for seq in range(3):
        put(sink, seq)
        (got,) = receive(source, 1)
        source.commit({0: got.next_offset})
    line = roles.line("learner", "Read", "group", GROUP)
    wait_for(lambda: [said for said in ours(caplog) if line in said])
    put(sink, 3)
    (got,) = receive(source, 1)
    source.commit({0: got.next_offset})
    put(sink, 4)
    assert seqs(receive(source, 1)) == [4]
    assert sum("may not" in said for said in ours(caplog)) == 1


def test_a_group_that_is_taken_away_costs_no_record_and_repeats_none(
    guarded: Served, roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    source, sink = roles.source(), roles.sink()
    put(sink, 0, 1)
    got = receive(source, 2)
    source.commit({0: got[-1].next_offset})
    wait_for(lambda: independent.committed(roles.broker.bootstrap, roles.topic, GROUP, 0) == 2)
    roles.forbid("learner", "Read", "group", GROUP)
    guarded.kill()
    if "client=kafka-python" in roles.stream.url:  # it gives the group's broker up when that does not answer
        source.commit({0: 2})
        wait_for(lambda: roles.stream.metrics.value("transport_errors_total", kind="commit") > 0)
    guarded.start()  # and the group has to be looked for again
    put(sink, 2)
    put(sink, 3)
    got = receive(source, 2)
    assert seqs(got) == [2, 3]
    source.commit({0: got[-1].next_offset})
    line = roles.line("learner", "Read", "group", GROUP)
    wait_for(lambda: [said for said in ours(caplog) if line in said])
    put(sink, 4)
    put(sink, 5)
    assert seqs(receive(source, 2)) == [4, 5]


def test_settings_that_may_not_be_asked_for_are_said(roles: Roles, caplog: pytest.LogCaptureFixture) -> None:
    for name in (roles.topic, roles.dead):
        roles.forbid("learner", "DescribeConfigs", "topic", name)
    roles.source()
    (line,) = ours(caplog)
    assert f"the login of 'learner' has no right DescribeConfigs on topic {roles.topic}, topic {roles.dead}: " in line
    roles.forbid("learner", "DescribeConfigs", "cluster", "kafka-cluster")
    roles.source()
    assert f", topic {roles.dead}, broker 1: " in ours(caplog)[-1]


def test_a_learner_that_may_not_make_its_topics_waits_for_who_may(
    guarded: Served, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    roles = Roles(guarded, client, tmp_path, monkeypatch)
    try:
        monkeypatch.setattr(kafka_topics, "TOPIC_TIMEOUT_S", 1.0)
        said = refused(roles.source)
        assert f"the topic {roles.topic} is not there; the learner, or setup, makes it (waited 1 s)" in said
        assert [line.partition("; waits up to")[0] for line in ours(caplog)] == [
            roles.line("learner", "Create", "topic", name) for name in (roles.topic, roles.dead)
        ]
        monkeypatch.setattr(kafka_topics, "TOPIC_TIMEOUT_S", 30.0)
        monkeypatch.setattr(kafka_topics.logger, "warning", lambda *words: roles.make_topics())
        roles.source()
    finally:
        roles.close()


def test_a_learner_that_may_make_its_topics_does(
    guarded: Served, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    roles = Roles(guarded, client, tmp_path, monkeypatch)
    try:
        for name in (roles.topic, roles.dead):
            roles.allow("learner", "Create", "topic", name)
            roles.rights.add(("learner", "Create", "topic", name))
        source, sink = roles.source(), roles.sink()
        put(sink, 0)
        assert seqs(receive(source, 1)) == [0]
    finally:
        roles.close()


def test_a_refused_password_names_its_file(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.common.transport.kafka_contact.CONNECT_TIMEOUT_S", 2.0)
    replace(roles.password_file("actor"), "wrong horse")
    said = refused(roles.sink)
    assert "the login of 'actor'" in said  # "the broker refuses ...", or what its hanging up may mean: both come
    assert "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD_FILE" in said
    assert "wrong horse" not in said


def test_a_new_password_is_taken_from_its_file(guarded: Served, roles: Roles, caplog: pytest.LogCaptureFixture) -> None:
    """By clients made from then on; by those of confluent-kafka at their next login, too."""
    caplog.set_level(logging.CRITICAL)
    source, sink = roles.source(), roles.sink()
    put(sink, 0)
    try:
        for user in PASSWORDS:
            independent.allow_login(guarded.bootstrap, user, f"new {user} horse", "SCRAM-SHA-512")
            replace(roles.password_file(user), f"new {user} horse")
        put(sink, 1)  # the connection goes on
        assert seqs(receive(source, 2)) == [0, 1]
        if "client=confluent" in roles.stream.url:
            guarded.kill()  # every connection is made anew
            guarded.start()
            put(sink, 2)
            assert seqs(receive(source, 1)) == [2]
        put(roles.sink(), 3)
        assert seqs(receive(source, 1)) == [3]
    finally:
        for user, password in PASSWORDS.items():
            independent.allow_login(guarded.bootstrap, user, password, "SCRAM-SHA-512")
