"""headrace status --url through a real Prometheus: roles that nobody here can reach, scaled up and down, one dead."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.common.errors import TransportError, UsageError
from headrace.observe import prometheus, status
from tests.ports import free_port

ROLE = """
import sys, threading
from headrace.common.metrics import Metrics
role, version, *phases = sys.argv[1:]
metrics = Metrics(role)
metrics.set({"paramserver": "weights_version"}.get(role, role + "_policy_version"), float(version))
print(metrics.serve(0), flush=True)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.wait(0.02):
    for phase in phases:
        key, _, share = phase.partition("=")
        metrics.inc(role + "_phase_seconds_total", 0.02 * float(share), phase=key)
    if role != "paramserver":
        metrics.inc(role + "_env_steps_total", 100)
    if role == "learner":
        metrics.inc("learner_updates_total")
"""
CONFIG = """
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs:
  - {job_name: headrace, file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]}
"""


class Cluster:
    """Roles, and the Prometheus that scrapes whatever ``targets`` names."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack, self.targets = folder, stack, dict[str, subprocess.Popen[str]]()
        self.url = f"http://127.0.0.1:{free_port()}"
        (folder / "prometheus.yml").write_text(CONFIG)
        self.announce()
        program = shutil.which("prometheus")
        assert program is not None
        log = stack.enter_context((folder / "log").open("wb"))
        storage, address = f"--storage.tsdb.path={folder}/data", self.url.removeprefix("http://")
        command = [program, f"--config.file={folder}/prometheus.yml", storage, f"--web.listen-address={address}"]
        server = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        stack.callback(server.kill)
        until("a Prometheus", lambda: prometheus.answers(self.url))

    def role(self, name: str, version: int, **phases: float) -> str:
        """Start one; returns host:port, which is how Prometheus calls it."""
        split = [f"{phase}={share}" for phase, share in phases.items()]
        command = [sys.executable, "-c", ROLE, name, str(version), *split]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        instance = f"127.0.0.1:{process.stdout.readline().strip()}"
        self.targets[instance] = process
        return instance

    def announce(self) -> None:
        """What service discovery does when containers come and go."""
        (self._folder / "targets.json").write_text(json.dumps([{"targets": list(self.targets)}]))

    def report(self) -> dict[str, Any]:
        return status.examine(None, [self.url], window_s=2.0)


def until(what: str, probe: Callable[[], Any], deadline_s: float = 30) -> Any:
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        with contextlib.suppress(TransportError, UsageError):
            if found := probe():
                return found
        time.sleep(0.1)
    raise AssertionError(f"no {what} within {deadline_s} s")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if shutil.which("prometheus") is None:
        assert os.environ.get("CI") != "true", "CI needs Prometheus (Debian package prometheus)"
        pytest.skip("no Prometheus on this machine (Debian package prometheus)")
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def test_a_cluster_is_seen_through_its_prometheus(cluster: Cluster) -> None:
    cluster.role("learner", 9, wait=0.9, update=0.1)
    cluster.role("paramserver", 9)
    actors = [cluster.role("actor", 8, env=0.9, lease=0.1) for _ in range(3)]
    cluster.announce()

    def steady() -> dict[str, Any] | None:
        report = cluster.report()
        rates = [r["steps_per_s"] for r in report["roles"] if r["role"] != "paramserver"]
        return report if len(report["roles"]) == 5 and all(rates) else None

    report = until("report on five roles", steady)
    assert (report["state"], report["bottleneck"]["name"]) == ("running", "actors too few")
    assert sorted((r["role"], r["index"]) for r in report["roles"]) == [
        ("actor", 0), ("actor", 1), ("actor", 2), ("learner", 0), ("paramserver", 0),
    ]  # fmt: skip
    actor = next(r for r in report["roles"] if r["role"] == "actor")
    assert actor["lag_versions"] == 1
    assert 2000 < actor["steps_per_s"] < 5500  # 100 steps every 20 ms and a bit
    assert actor["phases"]["env"] == pytest.approx(0.9, abs=0.01)

    cluster.targets.pop(actors[0]).kill()  # scaled down: no target any more
    cluster.targets[actors[1]].kill()  # died: still a target
    cluster.announce()

    def two_actors() -> dict[str, Any] | None:
        report = cluster.report()
        return report if len(report["roles"]) == 4 and report["state"] == "degraded" else None

    report = until("report on four roles, one dead", two_actors)
    (dead,) = [r for r in report["roles"] if not r["up"]]
    assert (dead["role"], dead["metrics"]) == ("actor", f"http://{actors[1]}")
    assert dead["error"] == f"Prometheus could not scrape {actors[1]}"
    assert any(actors[1] in line for line in status._lines(report))


def test_a_prometheus_without_our_roles_says_so(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="scrapes no role of ours"):
        cluster.report()


def test_a_role_is_no_prometheus(cluster: Cluster) -> None:
    assert not prometheus.answers("http://" + cluster.role("learner", 1))
    assert not prometheus.answers("http://127.0.0.1:1")
