"""headrace doctor: what it finds on this machine, and what it says of things that are wrong."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from headrace.common.transport.base import Limits
from headrace.observe import doctor, machine, probe
from headrace.observe.machine import FAIL, OK, WARN, Check
from tests.ports import free_port


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args(words))


def test_this_machine_is_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """The tests run here, so nothing can be a fail; and torch, asked for real, answers."""
    assert command("--json") == 0
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)}
    names = ["python", "packages", "cores", "memory", "disk", "torch", "environment", "java", "ports", "clock"]
    assert list(checks) == names
    assert "threads" in checks["torch"]["found"]
    assert "LunarLander-v3 steps" in checks["environment"]["found"]
    assert "kafka-python 3.0" in checks["packages"]["found"]
    for check in checks.values():
        assert bool(check["right"]) == (check["level"] != OK)


def test_lines_and_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Check("a", OK, "fine"), Check("b", WARN, "so so", "better"), Check("c", FAIL, "bad", "good")]
    monkeypatch.setattr(doctor, "examine", lambda *_: iter(found))
    assert command() == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok    a            fine",
        "warn  b            so so; better",
        "fail  c            bad; good",
    ]
    monkeypatch.setattr(doctor, "examine", lambda *_: iter(found[:2]))
    assert command() == 0


@pytest.mark.parametrize(
    ("requires", "level", "found", "right"),
    [
        ("numpy>=2.0", OK, "numpy ", ""),
        ("numpy>=99", FAIL, "numpy ", "pip install 'numpy>=99'"),
        ("no-such-package>=1", FAIL, "no-such-package is missing", "pip install 'no-such-package>=1'"),
        ('no-such-package>=1; extra == "x"', OK, "", ""),
        ('numpy>=99; extra == "x"', WARN, "numpy ", "pip install 'numpy>=99"),
        ('no-such-package; sys_platform == "plan9"', OK, "", ""),
    ],
)
def test_packages(monkeypatch: pytest.MonkeyPatch, requires: str, level: str, found: str, right: str) -> None:
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda _: [requires])
    check = next(machine.check_packages())
    assert check.level == level
    assert check.found.startswith(found)
    assert check.right.startswith(right)


def test_a_torch_that_cannot_be_imported_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert machine.check_torch().level == FAIL
    assert "ImportError: libtorch_cpu.so" in machine.check_torch().found
    (tmp_path / "torch.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert machine.check_torch().found == "exit code -11: nothing said"


def test_a_probe_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probe.ask("torch", timeout_s=0.5) == {"error": "no answer in 0.5 s"}


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("openjdk 17.0.15 2025-04-15", OK),
        ('openjdk version "21" 2023-09-19', OK),
        ('java version "1.8.0_292"', WARN),
        ("", WARN),
    ],
)
def test_java(monkeypatch: pytest.MonkeyPatch, said: str, level: str) -> None:
    monkeypatch.setattr(machine, "_says", lambda program, *_: said if program == "java" else "Apache Maven 3.8.7")
    assert machine.check_java().level == level


@pytest.mark.parametrize(
    ("files", "level", "found"),
    [
        ({"/proc/meminfo": "MemAvailable: 8388608 kB\n"}, OK, "8.0 GiB available"),
        ({"/proc/meminfo": "MemAvailable: 1048576 kB\n"}, WARN, "1.0 GiB available"),
        (
            {
                "/proc/meminfo": "MemAvailable: 8388608 kB\n",
                "/sys/fs/cgroup/memory.max": "2147483648\n",
                "/sys/fs/cgroup/memory.current": "1073741824\n",
            },
            WARN,
            "1.0 GiB available",
        ),
        ({}, WARN, "not known on this system"),
    ],
)
def test_memory(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], level: str, found: str) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert (machine.check_memory().level, machine.check_memory().found) == (level, found)


def test_a_quota_below_two_cores_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: "150000 100000\n")
    check = machine.check_cores()
    assert check.level == WARN
    assert "quota 1.5" in check.found


# --- the services --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def health_server(status: "health_pb2.HealthCheckResponse.ServingStatus | None") -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    if status is not None:
        servicer = health.HealthServicer()
        servicer.set("", status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(5)


@pytest.mark.parametrize(
    ("status", "level", "found"),
    [
        (health_pb2.HealthCheckResponse.SERVING, OK, "SERVING"),
        (health_pb2.HealthCheckResponse.NOT_SERVING, WARN, "NOT_SERVING"),
        (None, FAIL, "UNIMPLEMENTED"),
    ],
)
def test_paramserver(status: "health_pb2.HealthCheckResponse.ServingStatus | None", level: str, found: str) -> None:
    with health_server(status) as address:
        check = doctor.check_paramserver(address)
    assert check.level == level
    assert found in check.found


@pytest.mark.parametrize(
    ("url", "level", "found"),
    [
        ("kafka://127.0.0.1:{closed}/t", FAIL, "127.0.0.1:{closed}: Connection refused"),
        ("kafka://127.0.0.1:{closed}", FAIL, "no address of a carrier"),
        ("kafka://127.0.0.1:x/t", FAIL, "127.0.0.1:x: not host:port"),
        ("redis://h/t", FAIL, "no address of a carrier"),
        ("local://{folder}/not-there", WARN, "nothing there yet"),
        ("local://{folder}", OK, "there"),
    ],
)
def test_carrier(tmp_path: Path, url: str, level: str, found: str) -> None:
    closed = free_port()
    check = doctor.check_carrier(url.format(closed=closed, folder=tmp_path))
    assert check.level == level
    assert found.format(closed=closed) in check.found


def test_what_is_no_broker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with health_server(None) as address:
        check = doctor.check_carrier(f"kafka://{address}/t")
    assert check.level == FAIL
    assert check.right == "is it a Kafka broker, and may we log in?"


#: In a process of its own: kafka-python leaves sockets to the garbage collector while a broker is not up yet.
BROKER = """
import sys
from pathlib import Path
from headrace.launch import broker
from kafka.admin import KafkaAdminClient, NewTopic
info = broker.start(Path(sys.argv[1]), port=0, controller_port=0)
admin = KafkaAdminClient(bootstrap_servers=[info.bootstrap])
for topic, size in (("right", sys.argv[2]), ("small", "1000000")):
    admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": size})])
print(info.bootstrap)
"""


def test_a_real_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Topics of the right size, of too small a size, and none yet, on Apache Kafka itself."""
    if shutil.which("java") is None or shutil.which("mvn") is None:
        assert os.environ.get("CI") != "true", "CI needs Java 17 and Maven"
        with capsys.disabled():
            print("\nNOTICE: no Java or no Maven here; doctor was not tried on a real broker")
        return
    start = [sys.executable, "-c", BROKER, str(tmp_path), str(Limits().record_bytes)]
    stop = "import sys, pathlib; from headrace.launch import broker; broker.stop(pathlib.Path(sys.argv[1]), 30)"
    try:
        done = subprocess.run(start, stdout=subprocess.PIPE, text=True, check=True)
        url = f"kafka://{done.stdout.strip()}/"
        right, small, none = (doctor.check_carrier(url + topic) for topic in ("right", "small", "none"))
    finally:
        subprocess.run([sys.executable, "-c", stop, str(tmp_path)], check=True)
    assert (right.level, small.level, none.level) == (OK, FAIL, OK), (right, small, none)
    assert "topic right takes messages of 8,388,608 bytes" in right.found
    assert small.right == "set its max.message.bytes to 8388608 or more"
    assert none.found.endswith("1 broker(s), topic none is not there yet: the learner makes it")
