"""A real Prometheus scrapes a role process and answers a query.

The binaries are Debian's package `prometheus`. Where they are missing the test says so on the run's output and reads
the endpoint with the client library's parser only; with CI=true a missing binary is a failure.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.observe.scrape import endpoint_of, scrape
from tests.ports import free_port

ROLE = """
import sys, threading
from headrace.common.metrics import Metrics
metrics = Metrics("learner")
metrics.inc("learner_updates_total", 41)
metrics.inc("learner_phase_seconds_total", 1.5, phase="update")
metrics.observe("learner_staleness_versions", 1)
print(metrics.serve(0), flush=True)
sys.stdin.read()
"""

CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: headrace
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def wait_for(what: str, probe: Callable[[], object], deadline_s: float = 30) -> object:
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {deadline_s} s")


@pytest.fixture
def role_port() -> Iterator[int]:
    role = subprocess.Popen([sys.executable, "-c", ROLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert role.stdin is not None
    assert role.stdout is not None
    with role:
        try:
            yield int(role.stdout.readline())
        finally:
            role.kill()


def test_a_real_prometheus_scrapes_a_role(role_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prometheus, promtool = shutil.which("prometheus"), shutil.which("promtool")
    (shown,) = scrape([endpoint_of(f"http://127.0.0.1:{role_port}")])
    assert shown.value("learner_updates_total") == 41
    if prometheus is None or promtool is None:
        assert os.environ.get("CI") != "true", "CI needs prometheus and promtool (Debian package prometheus)"
        with capsys.disabled():
            print("\nNOTICE: no prometheus here; the endpoint was read with the client library's parser only")
        return
    checked = subprocess.run([promtool, "check", "metrics"], input=_text(role_port), capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(port=role_port))
    address = f"127.0.0.1:{free_port()}"
    with open(tmp_path / "log", "wb") as log:
        arguments = [
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}",
        ]
        server = subprocess.Popen([prometheus, *arguments], stdout=log, stderr=log)
    try:
        query = "sum by (role) (headrace_learner_updates_total * on(instance) group_right() headrace_role_info)"
        assert wait_for("answer", lambda: _query(address, query)) == [({"role": "learner"}, 41.0)]
        phases = dict((m["phase"], v) for m, v in _query(address, "headrace_learner_phase_seconds_total"))
        assert phases == {"wait": 0, "assemble": 0, "update": 1.5, "publish": 0, "checkpoint": 0}
        quantile = "histogram_quantile(0.5, headrace_learner_staleness_versions_bucket)"
        assert [value for _, value in _query(address, quantile)] == [0.5]
    finally:
        server.kill()
        server.wait()


def _text(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def _query(address: str, expression: str) -> list[tuple[dict[str, str], float]]:
    url = f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
    except (urllib.error.URLError, ConnectionError):
        return []
    return [(series["metric"], float(series["value"][1])) for series in result]
