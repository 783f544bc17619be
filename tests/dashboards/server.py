"""A real Prometheus for tests: Debian's package, our rules, whatever targets it is given."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

from .board import RULES

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: headrace
    static_configs: [{{targets: {targets}}}]
"""
MISSING = "needs prometheus and promtool (Debian: apt-get install prometheus)"
Sample = tuple[dict[str, str], list[tuple[float, float]]]


def promtool() -> str:
    return found("promtool")


def found(program: str) -> str:
    """Its path; the test is skipped where it is missing, which CI does not permit."""
    path = shutil.which(program)
    if path is None:
        assert os.environ.get("CI") != "true", f"CI {MISSING}"
        pytest.skip(MISSING)
    return path


class Prometheus:
    """One that answers at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _get(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def now(self, expression: str) -> list[tuple[dict[str, str], float]]:
        return [(row["metric"], float(row["value"][1])) for row in self._get("query", query=expression)["result"]]

    def lately(self, expression: str, seconds: float, step_s: float = 1.0) -> list[Sample]:
        """The curves of the last ``seconds``."""
        end = time.time()
        found = self._get(
            "query_range", query=expression, start=f"{end - seconds}", end=f"{end}", step=f"{step_s}"
        )["result"]  # fmt: skip
        return [(row["metric"], [(at, float(text)) for at, text in row["values"]]) for row in found]


@contextlib.contextmanager
def prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A server that scrapes ``targets`` (host:port) every second and evaluates our rules; killed on leaving."""
    program = found("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(rules=json.dumps(str(RULES)), targets=json.dumps(list(targets))))
    address = f"127.0.0.1:{free_port()}"
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        _wait(f"http://{address}/-/ready", folder / "log")
        yield Prometheus(f"http://{address}")
    finally:
        server.kill()
        server.wait()


def _wait(url: str, log: Path, deadline_s: float = 30) -> None:
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise AssertionError(f"no Prometheus within {deadline_s} s\n{log.read_text()[-2000:]}")
