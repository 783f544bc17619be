"""A checkout in which `docker compose` is used as docs/cluster.md says, and what the tests see of the run in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.observe.rows import Row, Tail

from .engine import Engine
from .images import ROOT

PROMETHEUS = "http://127.0.0.1:9090"
PROJECT = "headrace-test"
#: Grafana has no stand-in: where its image is not to be had, the rest runs without it.
_WITHOUT_GRAFANA = "services:\n  grafana:\n    profiles: [grafana]\n"


class Cluster:
    """``folder``: a copy of the tracked files, so that nothing of a run is left in the tree."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder, self.engine = folder, engine
        for name in _tracked():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        self.environment = engine.environment | {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **({"HEADRACE_UID": str(os.getuid())} if os.getuid() else {}),
        }
        self._tail: Tail | None = None
        self._rows: list[Row] = []

    def without_grafana(self) -> None:
        (self.folder / "without-grafana.yml").write_text(_WITHOUT_GRAFANA)
        self.environment["COMPOSE_FILE"] = "docker-compose.yml:without-grafana.yml"

    # --- commands --------------------------------------------------------------------------------------------------

    def run(self, line: str, timeout_s: float = 300.0) -> str:
        """A command as a person types it, in the checkout; what it printed. It must end well."""
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout[-6000:]}\n{self.state()}"
        return done.stdout

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What `docker compose ps` says of each container, those that ended as well."""
        said = self.run(f"docker compose ps --all --format json {service}")
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def kill(self, service: str) -> None:
        """SIGKILL from outside to what runs in the service's container: a death that its restart policy sees. (After a
        `docker kill` the engine starts nothing again.)"""
        os.kill(int(self._inspect(service, "{{.State.Pid}}")), signal.SIGKILL)

    def _inspect(self, service: str, what: str) -> str:
        (container,) = self.containers(service)
        return self.engine.docker("inspect", "--format", what, container["ID"]).strip()

    def state(self) -> str:
        """For a test that fails: every container, and the end of what those said that may have to do with it."""
        logs = "docker compose logs --no-color --timestamps --tail"
        show = f"docker compose ps --all; {logs} 6 actor kafka paramserver; {logs} 30 learner"
        done = subprocess.run(
            ["bash", "-c", show], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout[-12000:]

    def leftovers(self) -> str:
        """What the engine still has of this project; empty for nothing."""
        label = f"label=com.docker.compose.project={PROJECT}"
        kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        return "".join(self.engine.docker(*kind, "--quiet", "--filter", label) for kind in kinds)

    # --- what the run says of itself -------------------------------------------------------------------------------

    @property
    def run_dir(self) -> Path:
        return self.folder / "runs" / "lunarlander"

    @property
    def rows(self) -> list[Row]:
        """Every row that the learner wrote, in all its lives."""
        self._tail = self._tail or Tail(self.run_dir / "metrics.jsonl")
        self._rows += self._tail.new_rows()
        return self._rows

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each sample that Prometheus answers; [] when it does not."""
        url = f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return []
        return [(sample["metric"], float(sample["value"][1])) for sample in found]

    def roles_up(self) -> int:
        """Roles that Prometheus reaches; 0 while it knows of one that it cannot."""
        up = [value for _, value in self.query('up{job="headrace"}')]
        return len(up) if all(up) else 0

    def busy_actors(self) -> int:
        """Actors that collected something within the last 15 seconds."""
        return len(self.query("increase(headrace_actor_env_steps_total[15s]) > 0"))

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float) -> float:
        """Wait until ``condition`` is true; the seconds that took."""
        began_s = time.monotonic()
        while not condition():
            assert time.monotonic() - began_s < timeout_s, f"not within {timeout_s:g} s: {what}\n{self.state()}"
            time.sleep(0.2)
        return time.monotonic() - began_s

    def standstill_of_a_kill(self, service: str, timeout_s: float) -> float:
        """Kill it; the longest time without a new version until its next life is healthy and more versions have come.
        (The first ones come from what was under way.)"""
        former, last = self._inspect(service, "{{.State.StartedAt}}"), _made(self.rows)
        self.kill(service)
        killed_s = changed_s = time.monotonic()
        well, longest_s = None, 0.0
        while well is None or last <= well:
            now_s = time.monotonic()
            assert now_s - killed_s < timeout_s, f"not well {timeout_s:g} s after {service} was killed\n{self.state()}"
            longest_s = max(longest_s, now_s - changed_s)
            if _made(self.rows) > last:
                last, changed_s = _made(self.rows), now_s
            if well is None:
                started, health = self._inspect(service, "{{.State.StartedAt}} {{.State.Health.Status}}").split()
                well = last if started != former and health == "healthy" else None
            time.sleep(0.1)
        return longest_s

    def seconds_to_new_versions(self, timeout_s: float) -> float:
        """How long from now until versions are made again: a few, for the first may have been under way."""
        before = len(self.rows)
        epoch, version = (self.rows[-1]["learner_epoch"], self.rows[-1]["version"]) if before else (0, 0)

        def going_on() -> bool:
            last = self.rows[-1] if len(self.rows) > before else None
            return last is not None and (last["learner_epoch"] > epoch or last["version"] > version + 3)

        return self.wait(going_on, "new versions", timeout_s)


def _made(rows: list[Row]) -> tuple[int, int]:
    """The newest version that a row tells of. (A learner that waits writes rows as well.)"""
    return max((row["learner_epoch"], row["version"]) for row in rows)


def _tracked() -> list[str]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file()]
