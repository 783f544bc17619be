"""A run whose parts have a host each, and the broker's host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from headrace.launch import broker
from tests.certificates import Authority
from tests.faults.run import Run

from .network import Network

KAFKA_PORT, CONTROLLER_PORT, TLS_PORT, WEIGHTS_PORT, METRICS_PORT = 9092, 9093, 9094, 9400, 9100
#: One that comes back after a kill is let in as soon as its former life is given up: 9 s otherwise.
_SOON_BACK = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
_START = """
import json, pathlib, sys
from headrace.launch import broker
broker.start(pathlib.Path(sys.argv[1]), int(sys.argv[2]), timeout_s=90, settings=json.loads(sys.argv[3]))
"""
_FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"


class HostBroker:
    """Apache's own jars on the host "broker", where any other host may call them, in clear or over TLS."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self._data_dir = network, folder / "broker"
        self._address = network.address("broker")
        authority = Authority(folder / "authority")
        cert, key = authority.certificate("broker", f"IP:{self._address}")
        self._cafile, self._keystore = authority.ca, folder / "keystore.pem"
        self._keystore.write_text(key.read_text() + cert.read_text())
        self.start()

    def url(self, topic: str, client: str, tls: bool) -> str:
        at, more = (TLS_PORT, f"&security=SSL&cafile={self._cafile}") if tls else (KAFKA_PORT, "")
        return f"kafka://{self._address}:{at}/{topic}?partitions=3&client={client}{more}"

    def start(self) -> None:
        """Returns when it answers (to one who asks on its own host); one that runs is left as it is."""
        settings = _SOON_BACK | {
            "listeners": f"PLAINTEXT://0.0.0.0:{KAFKA_PORT},SSL://0.0.0.0:{TLS_PORT},"
            f"CONTROLLER://127.0.0.1:{CONTROLLER_PORT}",
            "advertised.listeners": f"PLAINTEXT://{self._address}:{KAFKA_PORT},SSL://{self._address}:{TLS_PORT}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL",
            "controller.quorum.voters": f"1@127.0.0.1:{CONTROLLER_PORT}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._keystore),
        }
        argv = [sys.executable, "-c", _START, str(self._data_dir), str(KAFKA_PORT), json.dumps(settings)]
        quick = os.environ | {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1"}  # a short life: the quick compiler only
        done = subprocess.run(
            self.network.inside("broker", argv), env=quick, capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def freeze(self) -> None:
        """It says nothing more; its kernel still takes what it is sent, connections included."""
        running = broker.status(self._data_dir)
        assert running is not None
        os.kill(running.pid, signal.SIGSTOP)


class HostRun(Run):
    """PPO on CartPole through ``kafka``. Hosts and roles have the same names, but for the number behind an actor's."""

    def __init__(self, folder: Path, kafka: HostBroker, client: str, *settings: str, tls: bool = False) -> None:
        self.network = kafka.network
        url = kafka.url(f"hosts-{uuid.uuid4().hex[:12]}", client, tls)
        weights = f"{self.network.address('paramserver')}:{WEIGHTS_PORT}"
        addresses = (f"transport.url='{url}'", f"weights.address='{weights}'", "weights.insecure=true")
        super().__init__(folder, "ppo", *addresses, *settings)

    def begin(self, *hosts: str) -> dict[str, subprocess.Popen[str]]:
        """The role of each host; returns when versions are made."""
        started = {host: self.on(host) for host in hosts}
        self.wait_for_version(20)
        return started

    def on(self, host: str) -> subprocess.Popen[str]:
        """Start the role of a host there. Only the learner has a run directory."""
        role = host.rstrip("0123456789")
        argv = [sys.executable, "-m", "headrace.launch.cli", role, "--config", str(self.file)]
        argv += ["--metrics-host", self.network.address(host), "--metrics-port", str(METRICS_PORT)]
        if role == "learner":
            argv += ["--run-dir", str(self.dir), "--episodes", "0"]
        return self.start(self.network.inside(host, argv), host)

    def logs(self) -> str:
        ended = [process for process in self._started if process.poll() is not None]
        said = [f"--- {p.args} ended with {p.returncode}: {p.stderr.read()[-2000:]}" for p in ended if p.stderr]
        return "\n".join([super().logs(), *said])

    def value(self, host: str, name: str, *labels: str) -> float:
        """A metric as the host shows it now."""
        url = f"http://{self.network.address(host)}:{METRICS_PORT}/metrics"
        argv = self.network.inside(host, [sys.executable, "-c", _FETCH, url])
        text = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"headrace_{name}" and tuple(sample.labels.values()) == labels:
                    return float(sample.value)
        raise KeyError(f"{host} shows no {name} {labels}")

    def put(self, actor: str) -> float:
        """Fragments of an actor that the broker has acknowledged; 0 before it can be asked."""
        try:
            return self.value(actor, "transport_records_total", "put")
        except subprocess.CalledProcessError:
            return 0.0

    def memory(self, *hosts: str) -> dict[str, float]:
        """MB resident, of everything that runs on a host."""
        return {
            host: sum(psutil.Process(pid).memory_info().rss for pid in self.network.pids(host)) / 1e6 for host in hosts
        }

    def beyond(self, more: int, timeout_s: float) -> float:
        """Seconds until the learner has made ``more`` versions than now (or soon: rows come every 0.1 s)."""
        began_s, before = time.monotonic(), self.made_in(0.0)[0]
        self.wait_until(lambda: self.version >= before + more, f"{more} more versions", timeout_s)
        return time.monotonic() - began_s

    def made_in(self, for_s: float) -> tuple[int, int]:
        """The version half a second from now, and how many are made in the ``for_s`` that follow."""
        time.sleep(0.5)
        before = self.version
        time.sleep(for_s)
        return before, self.version - before


def all_alive(processes: dict[str, subprocess.Popen[str]]) -> bool:
    return all(process.poll() is None for process in processes.values())


NewRun = Callable[..., HostRun]
