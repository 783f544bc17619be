"""headrace broker: a real one through its whole life, and every way in which it cannot start."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headrace.common.errors import TransportError, UsageError
from headrace.launch import broker
from headrace.launch.broker import jars, ports
from headrace.launch.cli import main

from ..common import independent

JAVA_17 = 'openjdk version "17.0.2" 2022-01-18'


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "broker"
    if (tmp_path / "broker").is_dir():
        broker.stop(tmp_path / "broker", timeout_s=5)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a script of that name on a path that has nothing else but the shell's own tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return make


@pytest.fixture
def no_jars(command: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Java of the right version that does nothing, and nothing to be fetched."""
    command("java", f"echo '{JAVA_17}' >&2")
    monkeypatch.setattr(jars, "resolve", lambda: Path("unused"))


def test_a_broker_from_start_to_stop_and_again(
    kafka_jars: None, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
    where = ["--data-dir", str(data_dir)]
    assert main(["broker", "status", *where]) == 1
    assert main(["broker", "start", *where, "--port", "0"]) == 0
    info = broker.status(data_dir)
    assert info is not None
    assert f"broker is ready at {info.bootstrap} (pid {info.pid}" in capsys.readouterr().out
    listening = [c.laddr.ip for c in psutil.Process(info.pid).net_connections("tcp") if c.status == "LISTEN"]
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    client = independent.admin(info.bootstrap)
    (made,) = client.create_topics([independent.NewTopic("kept", 1, 1)]).values()
    made.result(30)
    independent.produce(info.bootstrap, "kept", [b"one", b"two"])

    assert main(["broker", "start", *where, "--port", "0"]) == 0
    assert f"broker is running already at {info.bootstrap}" in capsys.readouterr().out
    assert main(["broker", "start", *where, "--port", str(info.port + 1)]) == 2
    assert f"is served on port {info.port} already" in capsys.readouterr().err
    assert main(["broker", "stop", *where]) == 0
    assert not psutil.pid_exists(info.pid) or psutil.Process(info.pid).status() == psutil.STATUS_ZOMBIE
    assert main(["broker", "status", *where]) == 1
    assert main(["broker", "stop", *where]) == 0
    assert "was not running" in capsys.readouterr().out

    again = broker.start(data_dir, port=0, timeout_s=90)
    assert (again.cluster_id, again.was_running) == (info.cluster_id, False)
    assert [m.value() for m in independent.consume(again.bootstrap, "kept")] == [b"one", b"two"]


def test_stop_never_ends_a_stranger(data_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        data_dir.mkdir()
        saved = {"port": 1, "controller_port": 2, "pid": stranger.pid, "cluster_id": "x"}
        saved["started_s"] = psutil.Process(stranger.pid).create_time()
        (data_dir / "broker.json").write_text(json.dumps(saved))
        assert broker.status(data_dir) is None
        assert broker.stop(data_dir) is False
        assert stranger.poll() is None
        stranger.communicate(b"\n", timeout=10)


def test_a_taken_port_is_one_line(data_dir: Path, no_jars: None) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} on 127\.0\.0\.1 cannot be used \(.*\); choose --port"):
            broker.start(data_dir, port=port)


@pytest.mark.parametrize("clients", [(32_768, 60_999), (17_000, 60_999)])
def test_a_free_port_is_none_that_a_client_may_be_given_meanwhile(tmp_path: Path, clients: tuple[int, int]) -> None:
    (tmp_path / "range").write_text(f"{clients[0]}\t{clients[1]}\n")
    assert all(ports.free_port(tmp_path / "range") < clients[0] for _ in range(200))


def test_a_port_is_free_where_clients_are_given_any(tmp_path: Path) -> None:
    (tmp_path / "range").write_text("1024\t65535\n")
    with socket.socket() as server:
        server.bind((ports.HOST, ports.free_port(tmp_path / "range")))


@pytest.mark.parametrize(
    ("java", "says"),
    [
        (None, "no java on the path; install Java 17 or newer"),
        ("echo 'java version \"1.8.0_402\"' >&2", 'is java version "1.8.0_402"; install Java 17 or newer'),
        ("true", "is not a java; install Java 17 or newer"),
    ],
    ids=["none", "old", "strange"],
)
def test_java_that_will_not_do(
    data_dir: Path, command: Callable[[str, str], None], capsys: pytest.CaptureFixture[str], java: str | None, says: str
) -> None:
    if java:
        command("java", java)
    assert main(["broker", "start", "--data-dir", str(data_dir)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("maven", "says"),
    [
        (None, "no mvn on the path to fetch Kafka's jars"),
        (
            "echo '[ERROR] Unknown host repo.example'; exit 1",
            "could not fetch Kafka's jars .*Unknown host repo.example",
        ),
    ],
    ids=["none", "fails"],
)
def test_maven_that_will_not_do(
    data_dir: Path, command: Callable[[str, str], None], maven: str | None, says: str
) -> None:
    command("java", f"echo '{JAVA_17}' >&2")
    if maven:
        command("mvn", maven)
    with pytest.raises(UsageError, match=says) as caught:
        broker.start(data_dir)
    assert "\n" not in str(caught.value)


def test_jars_are_fetched_once(tmp_path: Path, command: Callable[[str, str], None]) -> None:
    command("mvn", 'for a; do case $a in -DoutputDirectory=*) /bin/mkdir -p "${a#*=}";; esac; done')
    folder = jars.resolve()
    assert folder.is_dir()
    command("mvn", "exit 1")
    assert jars.resolve() == folder
    assert folder.parent == tmp_path / "cache"


def test_a_directory_of_something_else_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and no broker's data directory"):
        broker.start(data_dir)
    assert [p.name for p in data_dir.iterdir()] == ["thesis.txt"]


def test_a_log_of_another_cluster_is_refused(data_dir: Path, no_jars: None) -> None:
    (data_dir / "log").mkdir(parents=True)
    (data_dir / ".lock").touch()
    (data_dir / "cluster.id").write_text("ours")
    (data_dir / "log" / "meta.properties").write_text("cluster.id=theirs\nnode.id=1\nversion=1\n")
    with pytest.raises(UsageError, match=r"belongs to another cluster \(id theirs"):
        broker.start(data_dir, port=0)


def test_a_broker_that_dies_while_it_starts_says_why(
    data_dir: Path, no_jars: None, command: Callable[[str, str], None]
) -> None:
    dies = 'case "$*" in *kafka.Kafka*) echo "java.lang.Error: no space left"; echo "  at x.y(z)"; exit 1;; esac'
    command("java", f"echo '{JAVA_17}' >&2; {dies}")
    with pytest.raises(TransportError, match=r"broker\.log: .*no space left"):
        broker.start(data_dir, port=0, timeout_s=20)
    assert broker.status(data_dir) is None
