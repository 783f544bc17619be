"""A run by single roles, through a real broker, to which a schedule of faults happens; and its history afterwards.

storm = Storm(run, broker); storm.start(); storm.play(schedule.faults(seed, 20)); history = storm.end()

The storm is the supervisor: it starts again what it kills, the learner with --resume. What dies otherwise fails the
test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import psutil

from headrace.common.transport.kafka_address import parse
from tests.broker import OwnBroker
from tests.faults import history
from tests.faults.history import RECORDING, History
from tests.faults.run import Run
from tests.faults.schedule import Fault, steps

ACTORS = 2
#: A new process whose broker is away at its first contact ends so, and platforms start it again.
NOT_YET = "no broker answers within"
SAMPLE_EVERY_S = 0.5
#: After the last fault: versions that come, and how long they may take. Leases are out with the dead, brokers elect.
RECOVERED_VERSIONS, RECOVERED_S = 20, 60.0
#: What a process may come to hold beyond what it held when it had just started: a reader fetches 16 MiB ahead.
GROWTH_BYTES = 64 << 20


class Storm:
    """``broker`` serves the topic of ``run``."""

    def __init__(self, run: Run, broker: OwnBroker) -> None:
        self.run, self.broker = run, broker
        self._folder = run.folder / "recorded"
        self._folder.mkdir()
        self._live: dict[str, subprocess.Popen[str]] = {}
        self._memory: dict[str, list[int]] = {}
        self._sampled_s = 0.0

    def start(self) -> None:
        """All roles, until they make versions."""
        for target in ("paramserver", "learner", *(f"actor-{index}" for index in range(ACTORS))):
            self._start(target)
        self.run.wait_for_version(10)

    def play(self, faults: list[Fault]) -> None:
        """All of it, and then until versions come as if nothing had been."""
        began_s = time.monotonic()
        for step in steps(faults):
            while time.monotonic() < began_s + step.at_s:
                self._watch()
                time.sleep(0.05)
            self._do(step.what, step.target)
        before = self.run.version
        self._until(
            lambda: self.run.version >= before + RECOVERED_VERSIONS, "versions after the last fault", RECOVERED_S
        )

    def end(self) -> History:
        """Everybody is told to stop, actors first: they end with 0, and all that they sent is acknowledged."""
        for target in (*(f"actor-{index}" for index in range(ACTORS)), "learner"):
            self._live[target].terminate()
            code, said = self.run.end(self._live.pop(target))
            assert code == 0, f"{target} ended with {code}: {said}"
        found = history.recorded(self._folder)
        address = parse(self.run.config.transport.url)
        found.log = history.topic(address.brokers[0], address.topic, self.run.config.run.id)
        history.add_checkpoint(found, self.run.checkpoint())
        found.memory_bytes = self._memory
        return found

    def _do(self, what: str, target: str) -> None:
        self._watch()
        if target == "broker":
            {"kill": self.broker.kill, "start": self.broker.start}.get(what, lambda: self._signal(target, what))()
        elif what == "start":
            self._start(target)
        elif what == "kill":
            process = self._live.pop(target)
            process.kill()
            self.run.end(process)
        else:
            self._signal(target, what)

    def _signal(self, target: str, what: str) -> None:
        pid = self.broker.info.pid if target == "broker" else self._live[target].pid
        os.kill(pid, signal.SIGSTOP if what == "freeze" else signal.SIGCONT)

    def _start(self, target: str) -> None:
        role, _, index = target.partition("-")
        more = {"actor": ("--index", index), "learner": ("--resume", "--episodes", "0")}.get(role, ())
        recorder = {"PYTHONPATH": str(RECORDING), "HEADRACE_RECORD": str(self._folder)}
        self._live[target] = self.run.role(role, *more, env=recorder)

    def _watch(self) -> None:
        """Who is alive has not died (or, new, has not met its broker: it is started again); how much memory it has."""
        for target, process in list(self._live.items()):
            if process.poll() is None:
                continue
            code, said = self.run.end(process)
            assert (code, NOT_YET in said) == (2, True), f"{target} ended by itself with {code}: {said[-2000:]}"
            self._start(target)
        if time.monotonic() < self._sampled_s + SAMPLE_EVERY_S:
            return
        self._sampled_s = time.monotonic()
        for target, process in self._live.items():
            if not self._has_begun(target, process.pid):
                continue  # a start on a busy machine takes long, and is no growth
            held = psutil.Process(process.pid).memory_info().rss
            self._memory.setdefault(f"{target} {process.pid}", []).append(held)

    def _has_begun(self, target: str, pid: int) -> bool:
        """It recorded something; of the parameter server, which does not: it serves."""
        return (self._folder / f"{pid}.jsonl").exists() or (target == "paramserver" and self.run.pid(target) == pid)

    def _until(self, condition: Callable[[], bool], what: str, within_s: float) -> None:
        def watched() -> bool:
            self._watch()
            return condition()

        self.run.wait_until(watched, what, within_s)
