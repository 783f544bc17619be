"""What a swarm meets: real parameter servers (and relays of them) as processes, and a learner that counts.

with Rig() as rig:
    root = rig.server()                      # headrace paramserver
    relay = rig.server(upstream=root)        # headrace paramserver --upstream HOST:PORT
    crowd = rig.crowd(Crowd(root.address, ...))
    crowd.look()                             # what its clients counted
"""

from __future__ import annotations

import itertools
import multiprocessing as mp
import os
import resource
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families
from swarm import Arrival, Crowd, crowd

from headrace.common.metrics_table import PREFIX
from headrace.observe import endpoints

#: Subscribers that a server takes of one host (paramserver/options.py).
MOST_OF_A_HOST = 1024
START_S, ANSWER_S = 60.0, 180.0
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
SHOWN = ("weights_bytes_total", "leases_issued_total", "leases_expired_total", "weights_subscribers")


@dataclass(frozen=True)
class Server:
    """A parameter server that listens at ``address``, or a relay that does."""

    address: str
    process: subprocess.Popen[str]
    metrics_url: str

    def look(self) -> dict[str, float]:
        """CPU seconds used so far, the most memory ever resident, and its own counters."""
        times = psutil.Process(self.process.pid).cpu_times()
        with urllib.request.urlopen(f"{self.metrics_url}/metrics", timeout=ANSWER_S) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            shown = {sample.name.removeprefix(PREFIX): sample.value for f in families for sample in f.samples}
        seen = {"cpu_s": times.user + times.system, "peak_bytes": _peak_bytes(self.process.pid)}
        return seen | {name: shown[name] for name in SHOWN if name in shown}


class Workers:
    """Processes of ours that answer over a pipe."""

    def __init__(self, pipe: Connection, process: Any) -> None:
        self._pipe, self._process = pipe, process

    def look(self) -> Any:
        self.ask()
        return self.answer()

    def ask(self) -> None:
        self._pipe.send("look")

    def answer(self) -> Any:
        if not self._pipe.poll(ANSWER_S):
            raise TimeoutError(f"{self._process.name} does not answer")
        return self._pipe.recv()  # EOFError: it has died, and said why

    def close(self) -> None:
        if self._process.is_alive():
            self._pipe.send(None)
        self._process.join(ANSWER_S)
        if self._process.is_alive():
            self._process.kill()


class Rig:
    """Starts processes, and ends them in reverse order."""

    def __init__(self, run_id: str = "swarm") -> None:
        self.run_id = run_id
        self._ends: list[Callable[[], object]] = []
        self._spawn = mp.get_context("spawn")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection each, on both sides
        self._ends.append(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))

    def __enter__(self) -> Rig:
        folder = tempfile.TemporaryDirectory(prefix="swarm-")
        self.folder = Path(folder.name)
        self._ends.append(folder.cleanup)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._ends:
            self._ends.pop()()

    def at_end(self, end: Callable[[], object]) -> None:
        self._ends.append(end)

    def server(self, upstream: Server | None = None) -> Server:
        """The root, or a relay below ``upstream``."""
        run_dir = self.folder / f"server-{len(self._ends)}"
        settings = (f"run.id={self.run_id}", "weights.address=127.0.0.1:0", "weights.leases_per_peer=65536")
        argv = [sys.executable, "-m", "headrace.launch.cli", "paramserver", "--config", "cartpole-ppo", "--stay"]
        argv += ["--run-dir", str(run_dir), *(word for one in settings for word in ("--set", one))]
        argv += ["--upstream", upstream.address] if upstream else []
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
        self._ends.append(lambda: _end(process))
        assert process.stdout is not None
        line = process.stdout.readline()
        if "listens on" not in line:
            raise SystemExit(f"the {'relay' if upstream else 'parameter server'} did not start (it says why above)")
        return Server(line.split()[-1], process, endpoints.read(run_dir)[0].metrics)

    def crowds(self, like: list[Crowd]) -> list[Workers]:
        return [self.start(crowd, what) for what in like]

    def start(self, target: Callable[..., None], *args: Any) -> Workers:
        """``target(pipe, *args)`` in a process of its own."""
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(target=target, args=(theirs, *args), daemon=True)
        process.start()
        theirs.close()
        workers = Workers(ours, process)
        self._ends.append(workers.close)
        return workers


def look(crowds: list[Workers]) -> tuple[dict[str, float], list[Arrival]]:
    """What all crowds counted, summed, and what arrived since the last look."""
    for one in crowds:
        one.ask()
    sums: dict[str, float] = {}
    arrived: list[Arrival] = []
    for counts, came in [one.answer() for one in crowds]:
        arrived += came
        for name, value in counts.items():
            sums[name] = sums.get(name, 0) + value
    return sums, arrived


def shares(n: int, processes: int) -> list[range]:
    """Numbers 0 to n - 1 in ``processes`` parts."""
    bounds = [n * i // processes for i in range(processes + 1)]
    return [range(*pair) for pair in itertools.pairwise(bounds)]


def growth(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0) for name, value in after.items()}


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0
