"""A run made of real processes that really can be killed, for the tests in this folder.

run = Run(tmp_path, "ppo")          # a small config in a run directory
run.train() or run.role("learner")  # real processes, ended by run.close()
run.kill("actor", 0)                # SIGKILL, by the pid it announced
run.wait_until(lambda: run.version >= 20, "version 20")
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from headrace.launch.build import with_addresses
from headrace.launch.config import Config
from headrace.launch.load import load
from headrace.launch.socket_dir import hold_socket_dir, release_socket_dir, socket_dir
from headrace.learner import checkpoint_reader
from headrace.learner.checkpoint_reader import Checkpoint
from headrace.observe import endpoints
from headrace.observe.rows import Row, Tail

#: Far beyond what an idle machine needs: a wait that takes so long is a failure, not a slow machine.
DEADLINE_S = 60.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: Small nets and batches, checkpoints and rows all the time. (Of the evaluator: tests/launch/test_evaluation.py.)
COMMON = ("run.checkpoint_every_s=0.2", "run.log_every_s=0.1", "run.total_steps=100_000_000", "actors.processes=2",
          "algorithm.hidden=[16]", "run.evaluation_share=0")  # fmt: skip
SETTINGS = {
    "ppo": ("actors.envs=2", "actors.fragment_steps=32", "algorithm.epochs=1", "algorithm.minibatch=64"),
    "dqn": ("actors.envs=2", "actors.fragment_steps=16", "algorithm.min_size=64", "algorithm.capacity=4000",
            "algorithm.samples_per_insert=4", "algorithm.minibatch=32"),
    "grpo": ("algorithm.groups=2", "algorithm.group_size=4", "algorithm.max_steps=60"),
}  # fmt: skip


class Run:
    """``algorithm``: ppo, dqn or grpo on CartPole. ``settings`` go on top, as ``--set`` would."""

    def __init__(self, folder: Path, algorithm: str, *settings: str) -> None:
        self.folder = folder
        wanted = (*COMMON, *SETTINGS[algorithm], *settings)
        self.config: Config = with_addresses(load(f"cartpole-{algorithm}", wanted))
        self.file = folder / "wanted.toml"
        self.file.write_text(self.config.to_toml())
        self._sockets = hold_socket_dir(socket_dir(self.config.run.id))
        self.dir = folder / "run"
        self._tail = Tail(self.dir / "metrics.jsonl")
        self._rows: list[Row] = []
        self._started: list[subprocess.Popen[str]] = []

    # --- processes -------------------------------------------------------------------------------------------------

    def train(self, *more: str, resume: bool = False) -> subprocess.Popen[str]:
        """``headrace train``, fresh or ``--resume``; no evaluation at the end."""
        what = ["--resume"] if resume else [str(self.file)]
        return self._start("train", *what, "--run-dir", str(self.dir), "--episodes", "0", "--no-gif", *more)

    def role(self, role: str, *more: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """A process of one role, as on a cluster. ``env``: what is its alone in its environment."""
        self.dir.mkdir(exist_ok=True)
        return self._start(role, "--config", str(self.file), "--run-dir", str(self.dir), *more, env=env)

    def _start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return self.start([sys.executable, "-m", "headrace.launch.cli", *arguments], arguments[0], env)

    def start(self, argv: list[str], name: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Any process that belongs to this run."""
        with (self.folder / f"{name}.out").open("a") as out:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | ONE_THREAD | dict(env or {}),
            )
        self._started.append(process)
        return process

    def pid(self, role: str, index: int = 0) -> int | None:
        """Of the role process that announced itself last, if it is alive."""
        found = [e.pid for e in endpoints.read(self.dir) if (e.role, e.index) == (role, index)]
        return found[0] if found and alive(found[0]) else None

    def kill(self, role: str, index: int = 0) -> int:
        """SIGKILL the role's process once it is there; returns its pid."""
        pid = self.wait_until(lambda: self.pid(role, index), f"{role} {index} is there")
        os.kill(pid, signal.SIGKILL)
        return int(pid)

    def pids(self) -> list[int]:
        """Every process of this run but the ones that watch it."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = process.info["cmdline"] or []
            if str(self.dir) in words and "train" not in words and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.info["pid"])
        return found

    def close(self) -> None:
        """SIGKILL whatever of this run is left."""
        for process in self._started:
            process.kill()
            process.communicate()
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        release_socket_dir(socket_dir(self.config.run.id), self._sockets)

    # --- what it says of itself ------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[Row]:
        """All rows of metrics.jsonl so far, of every life of the learner."""
        self._rows += self._tail.new_rows()
        return self._rows

    @property
    def version(self) -> int:
        """Of the newest row; -1 before the first."""
        return self.rows[-1]["version"] if self.rows else -1

    def checkpoint(self) -> Checkpoint:
        """The newest that verifies."""
        found = checkpoint_reader.latest(self.dir / "checkpoints")
        assert found is not None, "no intact checkpoint"
        return found

    def checkpoints(self) -> list[str]:
        return sorted(p.name for p in (self.dir / "checkpoints").glob("ckpt-*"))

    def metrics(self, role: str, index: int = 0) -> dict[tuple[str, ...], float]:
        """(name without prefix, label values...) -> value, as the role shows them now; {} when it does not answer."""
        urls = [e.metrics for e in endpoints.read(self.dir) if (e.role, e.index) == (role, index)]
        if not urls:
            return {}
        try:
            with urllib.request.urlopen(f"{urls[0]}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        return {
            (s.name.removeprefix("headrace_"), *s.labels.values()): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }

    # --- waiting ---------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
        """The first true answer of ``condition``."""
        deadline = time.monotonic() + timeout_s
        while not (answer := condition()):
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}\n{self.logs()}"
            time.sleep(0.02)
        return answer

    def wait_for_version(self, version: int) -> None:
        self.wait_until(lambda: self.version >= version, f"version {version}")

    def end(self, process: subprocess.Popen[str], timeout_s: float = DEADLINE_S) -> tuple[int, str]:
        """Exit code and stderr of a process that comes to its end by itself."""
        try:
            _, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s:g} s\n{self.logs()}") from None
        return process.returncode, said

    def logs(self) -> str:
        """The end of every log, for a test that fails."""
        files = [*sorted(self.dir.glob("logs/*")), *sorted(self.folder.glob("*.out"))]
        return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')[-2000:]}" for f in files)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def applied(found: Checkpoint) -> int:
    """How many fragments a checkpoint has taken, whatever became of them."""
    return sum(end - first for first, end in found.info["spent"])


def refused(found: Checkpoint, *reasons: str) -> int:
    """Records refused, for ``reasons`` or for any."""
    rejected = found.info["counters"]["rejected"]
    return sum(n for reason, n in rejected.items() if not reasons or reason in reasons)


def assert_nothing_twice_nothing_late(run: Run, max_staleness: int = 1) -> None:
    """The books agree with themselves, and no fragment was older than the bound when it was trained on."""
    counters, per_version = run.checkpoint().info["counters"], run.config.algorithm_config().fragments
    assert counters["fragments"] == counters["version"] * per_version
    assert counters["fragments"] + refused(run.checkpoint(), "stale") == applied(run.checkpoint())
    assert max((row["staleness_max"] for row in run.rows), default=0) <= max_staleness
