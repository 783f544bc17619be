"""headrace setup kafka at a real broker: who may do what afterwards, and a whole run by roles that may do no more."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition, errors

from headrace.common.errors import HeadraceError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_sink, open_source
from headrace.launch import cli
from tests.common.kafka_streams import put, receive
from tests.faults.run import Run
from tests.ports import free_ports

from .secured import Secured

RUN_ID = "setup"
LIMITS = Limits(8 << 20, 64 << 20)


@pytest.fixture(scope="module")
def secured(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker at which `setup kafka` was run, twice."""
    made = Secured(tmp_path_factory.mktemp("secured"))
    try:
        for _ in range(2):
            assert setup(made) == 0
        yield made
    finally:
        made.broker.kill()


def setup(at: Secured, *more: str, config: str = "cartpole-ppo") -> int:
    url = f"transport.url=kafka://{at.clients}?partitions=2"
    words = ["--config", config, "--set", f"run.id={RUN_ID}", "--set", url, "--admin", at.admin]
    return cli.main(["setup", "kafka", *words, "--secrets", str(at.secrets), *more])


@pytest.fixture
def url(secured: Secured) -> str:
    return f"kafka://{secured.clients}/headrace-{RUN_ID}?patience_s=5"


def become(monkeypatch: pytest.MonkeyPatch, secured: Secured, user: str) -> None:
    for key, value in secured.login(user).items():
        monkeypatch.setenv(key, value)


def source(url: str, group: str = f"headrace-{RUN_ID}"):  # type: ignore[no-untyped-def]
    return open_source(url, limits=LIMITS, metrics=Metrics("learner"), dead_letter=Path("unused"), group=group)


def committed(secured: Secured, partition: int) -> int | None:
    with contextlib.closing(
        KafkaConsumer(bootstrap_servers=secured.admin, group_id=f"headrace-{RUN_ID}", enable_auto_commit=False)
    ) as asking:
        found: int | None = asking.committed(TopicPartition(f"headrace-{RUN_ID}", partition))
        return found


def test_actors_write_and_the_learner_reads_and_commits(
    secured: Secured, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, secured, "learner")
    reading = source(url)
    try:
        become(monkeypatch, secured, "actor")
        sink = open_sink(url, limits=LIMITS, metrics=Metrics("actor"), key="0")
        put(sink, 1, 2)
        sink.close(5.0)
        got = receive(reading, 2)
        assert [received.trajectory.seq for received in got] == [1, 2]
        reading.reject(got[0], "nan", "on purpose")
        reading.commit({got[0].partition: got[0].next_offset})
        until_s = time.monotonic() + 30
        while committed(secured, got[0].partition) != got[0].next_offset:
            assert time.monotonic() < until_s, "the learner's progress does not show"
            time.sleep(0.1)
    finally:
        reading.close()


def test_an_actor_may_not_read(secured: Secured, url: str) -> None:
    """By the client library alone, for ours asks for more than reading needs."""
    secrets = secured.secrets / "actor"
    login = {"sasl_plain_username": "actor", "sasl_plain_password": (secrets / "kafka.password").read_text().strip()}
    secure = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "ssl_cafile": str(secrets / "ca.crt")}
    with contextlib.closing(
        KafkaConsumer(bootstrap_servers=secured.clients, auto_offset_reset="none", **login, **secure)
    ) as consumer:
        partition = TopicPartition(f"headrace-{RUN_ID}", 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        with pytest.raises(errors.TopicAuthorizationFailedError):
            consumer.poll(timeout_ms=10_000)


def test_the_learner_may_not_write(secured: Secured, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, secured, "learner")

    def write() -> None:
        sink = open_sink(url, limits=LIMITS, metrics=Metrics("actor"), key="0")
        try:
            put(sink, 1)
        finally:
            sink.close(1.0)

    with pytest.raises(HeadraceError, match=r"the login of .learner. may not Write topic"):
        write()


@pytest.mark.parametrize("user", ["actor", "learner"])
def test_nobody_makes_topics(secured: Secured, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    become(monkeypatch, secured, user)
    with pytest.raises(UsageError) as caught:
        source(f"kafka://{secured.clients}/another-{user}").close()
    assert "\n" not in str(caught.value)


def test_a_wrong_password_is_one_line(
    secured: Secured, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, secured, "actor")
    (tmp_path / "password").write_text("guessed\n")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(UsageError, match="the login of 'actor'"):
        open_sink(url, limits=LIMITS, metrics=Metrics("actor"), key="0")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ["--secrets", "/nowhere"],
            "/nowhere/learner/kafka.password: No such file or directory; run `headrace setup files`",
        ),
        (["--set", "run.id="], "run.id is empty"),
        (["--set", "transport.url=local://"], "which needs none of this"),
        (["--admin", "127.0.0.1:1", "--timeout-s", "1"], "no broker answers"),
        (["--admin", "nonsense"], "is no host:port"),
    ],
)
def test_what_is_wrong_is_one_line(
    secured: Secured, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    capsys.readouterr()
    assert setup(secured, *more) in (1, 2)
    said = capsys.readouterr().err.strip().splitlines()
    assert says in said[-1]


def test_a_run_by_roles_that_may_do_no_more(secured: Secured, tmp_path: Path) -> None:
    """What docker-compose.yml starts, as plain processes."""
    run = Run(tmp_path, "ppo", f"run.id={RUN_ID}", f"transport.url=kafka://{secured.clients}?partitions=2")
    (port,) = free_ports(1)
    try:
        for role in ("paramserver", "learner", "actor", "evaluator"):
            where = tmp_path / "evaluator" if role == "evaluator" else run.dir
            words = [role, "--config", str(run.file), "--run-dir", str(where)]
            words += secured.weights(role, f"localhost:{port}")
            login = secured.login(role) if role in ("learner", "actor") else {}
            run.start([sys.executable, "-m", "headrace.launch.cli", *words], role, login)
        run.wait_for_version(5)
        run.wait_until(lambda: (tmp_path / "evaluator" / "evaluations.jsonl").exists(), "an evaluation")
        assert not [name for name in os.listdir(run.dir) if name == "dead_letter"]
    finally:
        run.close()
