"""The broker that the Kafka tests run against, in this order of choice:

    KAFKA_BOOTSTRAP     a broker of yours (host:port)
    docker              apache/kafka in a container, where a Docker engine answers
    jars                Apache's own jars, where Java 17 and Maven are (headrace.launch.broker)
    mock                librdkafka's mock cluster: has no disk, no topic limits and no restarts

On the mock, the tests that need a real broker are left out and the run's last lines say so; with CI=true that is a
failure instead.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.launch import broker
from headrace.launch.broker import jars, ready
from tests.ports import free_port

IMAGE = "apache/kafka:4.3.1"
#: Fixtures that only a real broker, or only one that we may kill, can serve.
NEEDS_REAL, NEEDS_JARS = "real_kafka", "kafka_jars"


@functools.cache
def kind() -> str:
    """environment, docker, jars or mock. Fetches the jars if it comes to that."""
    if os.environ.get("KAFKA_BOOTSTRAP"):
        return "environment"
    if _docker_answers():
        return "docker"
    return "jars" if has_jars() else "mock"


@functools.cache
def has_jars() -> bool:
    try:
        jars.java(), jars.resolve()
        return True
    except UsageError:
        return False


def _docker_answers() -> bool:
    """An engine that answers, and has the image or can fetch it."""
    if shutil.which("docker") is None:
        return False
    for command, timeout_s in ((["docker", "info"], 10), (["docker", "pull", "-q", IMAGE], 300)):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=timeout_s)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False
    return True


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """host:port of a running broker of the chosen kind; ended on leaving."""
    match kind():
        case "environment":
            yield os.environ["KAFKA_BOOTSTRAP"]
        case "docker":
            with _container() as bootstrap:
                yield bootstrap
        case "jars":
            ours = OwnBroker(folder)
            yield ours.info.bootstrap
            ours.kill()
        case _:
            assert os.environ.get("CI") != "true", "CI=true, and no real Kafka broker: " + __doc__
            with _mock() as bootstrap:
                yield bootstrap


#: One that comes back after a kill is let in as soon as its former life is given up: 9 s otherwise.
_SOON_BACK = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}


class OwnBroker:
    """A broker from the jars that its test may kill and start again, on the same port and log."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None, port: int = 0) -> None:
        self.data_dir, self._settings, self._port = data_dir, _SOON_BACK | dict(settings or {}), port or free_port()
        self.start()

    def start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")  # a short life: the quick compiler only
            self.info = broker.start(self.data_dir, self._port, free_port(), timeout_s=90, settings=self._settings)

    def kill(self) -> None:
        """SIGKILL, as a machine that loses power would (but for its page cache)."""
        os.kill(self.info.pid, signal.SIGKILL)
        self.wait_until_gone()

    def wait_until_gone(self) -> None:
        """Until its process has ended and its port is free."""
        end = time.monotonic() + 30
        while broker.status(self.data_dir) is not None or not _free(self._port):
            assert time.monotonic() < end
            time.sleep(0.01)

    def stop(self) -> None:
        broker.stop(self.data_dir, timeout_s=30)


def _free(port: int) -> bool:
    """A process counts as dead before the last of its threads has let go of its sockets."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


@contextlib.contextmanager
def _container() -> Iterator[str]:
    port = free_port()
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:29093",
        "LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:29093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    options = [f"--env=KAFKA_{name}={value}" for name, value in settings.items()]
    command = ["docker", "run", "--detach", "--rm", f"--publish=127.0.0.1:{port}:{port}", *options, IMAGE]
    container = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    try:
        ready.wait(f"127.0.0.1:{port}", time.monotonic() + 60, lambda: None)
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run(["docker", "kill", container], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def _mock() -> Iterator[str]:
    from confluent_kafka import Producer

    cluster = Producer({"test.mock.num.brokers": 1})
    (address,) = cluster.list_topics(timeout=10).brokers.values()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAFKA_API_VERSION", "2.3")  # the mock does not answer the client's probe
        yield f"{address.host}:{address.port}"
    del cluster


# --- for conftest.py -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker that lasts for the whole run."""
    with serve(tmp_path_factory.mktemp("kafka") / "broker") as bootstrap:
        yield bootstrap


@pytest.fixture
def real_kafka(kafka_bootstrap: str) -> str:
    """As ``kafka_bootstrap``, for tests of what the mock does not have."""
    return kafka_bootstrap


@pytest.fixture(scope="session")
def kafka_jars() -> None:
    """For tests that start, stop and kill brokers of their own."""
    assert has_jars(), "needs Java 17, and Maven to fetch Kafka's jars"


_left_out: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def can_run(item: pytest.Item) -> bool:
        needs = getattr(item, "fixturenames", ())
        wants_kafka = item.get_closest_marker("real_server") is not None and "kafka" in item.name
        return not ((NEEDS_REAL in needs or wants_kafka) and kind() == "mock") and not (
            NEEDS_JARS in needs and not has_jars()
        )

    if os.environ.get("CI") == "true":
        return
    gone = [item for item in items if not can_run(item)]
    if gone:
        _left_out.extend(item.name for item in gone)
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        terminalreporter.write_sep("!", "no real Kafka broker", yellow=True)
        terminalreporter.write_line(
            f"Kafka tests ran against {kind()}; {len(_left_out)} that need a real broker which may be restarted were "
            "left out. Set KAFKA_BOOTSTRAP, start a Docker engine, or install Java 17 and Maven."
        )
