"""The two ends that bench/image_rate.py measures, each in a process of its own: who puts images, who takes them in.

    python bench/image_sides.py put|take CASE [INDEX]      (a line of JSON on stdout when ready, and one at the end)

What is timed are the functions that a run uses, each under its own name, in CPU seconds of the thread that calls them
and without those that it calls in turn.
"""

from __future__ import annotations

import functools
import json
import resource
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from headrace.common import codec
from headrace.common.metrics import Metrics
from headrace.common.transport import kafka_address, kafka_reader, local, memory_file, open_sink, open_source
from headrace.common.types import Array, Layout, Schema, Trajectory
from headrace.common.weights.base import LedgerState
from headrace.launch.build import Blueprint
from headrace.launch.load import load
from headrace.learner.experience import make_buffer
from headrace.learner.intake import Intake
from headrace.learner.leases import Leases

WAIT_S = 60.0
DIFFERENT = 4  # fragments that each producer sends in turn


@dataclass(frozen=True)
class Case:
    """``records`` fragments of ``producers`` processes over ``url``. ``frames``: a file, uint8 [n, T + 1, B, 84, 84].
    ``before``: all are put before the learner reads. ``broker_pid``: 0 where there is no broker."""

    url: str
    frames: str
    records: int
    producers: int
    before: bool = False
    broker_pid: int = 0

    @property
    def blueprint(self) -> Blueprint:
        return Blueprint(load("pong-ppo", ["run.id=images", f"transport.url='{self.url}'"]))


class Stopwatch:
    """CPU seconds by phase, of calls in any thread."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = defaultdict(float)
        self._thread = threading.local()

    def timed(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def run(*args: Any, **named: Any) -> Any:
            before = getattr(self._thread, "inner_s", 0.0)
            self._thread.inner_s, began_s = 0.0, time.thread_time()
            try:
                return call(*args, **named)
            finally:
                took_s = time.thread_time() - began_s
                self.cpu_s[phase] += took_s - self._thread.inner_s
                self._thread.inner_s = before + took_s

        return run

    def watch(self, owner: Any, name: str, phase: str) -> None:
        setattr(owner, name, self.timed(phase, getattr(owner, name)))


def fragments(schema: Schema, frames: Array, task_id: str) -> list[Trajectory]:
    """One for each of ``frames``, as an actor would have them, but that no episode ends."""
    rng, made = np.random.default_rng(0), []
    for shown in frames:
        T, B = len(shown) - 1, shown.shape[1]
        leading = {Layout.STEP: (T, B), Layout.CHAIN: (T + 1, B), Layout.FINAL: (0,), Layout.START: (B,)}
        arrays = {}
        for name, field in schema.fields.items():
            shape = leading[field.layout] + field.shape
            if name == "behaviour_logp":
                arrays[name] = rng.standard_normal(shape, np.float32)
            elif field.choices:
                arrays[name] = rng.integers(field.below, size=shape, dtype=field.dtype)
            else:
                arrays[name] = np.resize(shown if field.dtype == "uint8" else np.zeros(1), shape).astype(field.dtype)
        made.append(Trajectory("images", 1, 0, 0, 0, 0, 0, task_id, schema.hash, T, B, arrays))
    return made


def put(case: Case, index: int) -> None:
    """Producer ``index``: the leases index, index + producers, ..."""
    blueprint, watch = case.blueprint, Stopwatch()
    watch.watch(codec, "crc32c", "crc")
    watch.watch(codec, "pack", "compress")
    watch.watch(memory_file.Files, "store", "copy")
    made = fragments(blueprint.schema, np.load(case.frames), blueprint.task_id)
    sink = open_sink(case.url, limits=blueprint.limits, metrics=Metrics("actor"), key=f"actor-{index}")
    say({"ready": True})
    sys.stdin.readline()
    cpu_s, began_s = time.process_time(), time.monotonic()
    for seq, lease in enumerate(range(index, case.records, case.producers)):
        stamped = replace(made[seq % len(made)], actor_id=index, incarnation=index + 1, seq=seq, lease=lease)
        sink.put(stamped, WAIT_S)
    sink.flush(WAIT_S)
    cpu_s = time.process_time() - cpu_s
    say({"cpu_s": cpu_s, "wall_s": time.monotonic() - began_s, "phases_s": with_rest(watch, cpu_s)})
    sys.stdin.readline()  # the learner has it all: local:// would take back what waits
    sink.close(5.0)


def take(case: Case) -> None:
    """The learner's side: source, intake and batches as launch/run_learner.py and learner/loop.py wire them."""
    blueprint, watch = case.blueprint, _watched(case)
    leases, buffer = Leases(epoch=1), make_buffer(blueprint.experience, blueprint.schema, seed=0)
    leases.hear(LedgerState(case.records, out=tuple(_holder(case, n) for n in range(case.records))), 0)
    dead = Path(case.frames).with_name("dead_letter")
    source = open_source(
        case.url, limits=blueprint.limits, metrics=Metrics("learner"), dead_letter=dead, group="images"
    )
    with _producers(case) as processes:
        if case.before:
            _go(processes)
            put_by = [_heard(process) for process in processes]
        check = watch.timed("validate", blueprint.check_fragment)
        join = watch.timed("join", buffer.next_round)
        broker_s, threads_s, cpu_s = _broker_s(case), _threads_s(), time.process_time()
        queue_bytes, began_s = blueprint.config.transport.queue_bytes, time.monotonic()
        if case.before:
            source.seek({})
        intake = Intake(source, check, leases, lambda: 0, Metrics("learner"), queue_bytes, {})
        if not case.before:
            _go(processes)
        for _ in range(case.records):
            received = intake.take(WAIT_S)
            assert received is not None, "no record came"
            buffer.add(received.trajectory)
            if (round_ := join()) is not None:
                watch.timed("join", list)(round_.batches)
        wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
        threads = {name: used - threads_s.get(name, 0.0) for name, used in _threads_s().items()}
        put_by = put_by if case.before else [_heard(process) for process in processes]
        broker_s = _broker_s(case) - broker_s
    intake.close()
    steps = received.trajectory.T * received.trajectory.B
    result = {
        "frames": case.records * steps, "frame_record_bytes": received.trajectory.nbytes, "wall_s": wall_s,
        "cpu_s": cpu_s, "phases_s": with_rest(watch, cpu_s), "threads_s": threads, "broker_cpu_s": broker_s,
        "put": put_by, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }  # fmt: skip
    say(result)


def _watched(case: Case) -> Stopwatch:
    """The learner's phases."""
    watch = Stopwatch()
    watch.watch(codec, "crc32c", "crc")
    watch.watch(codec, "unpack", "decompress")
    watch.watch(codec, "decode", "decode")
    watch.watch(local, "read", "copy")
    kafka_reader.decode = codec.decode
    if case.url.startswith("kafka"):
        client = import_module(f"headrace.common.transport.{kafka_address.parse(case.url).client}")
        watch.watch(client.Consumer, "poll", "fetch")
    return watch


def with_rest(watch: Stopwatch, cpu_s: float) -> dict[str, float]:
    """All phases, and what is left of the process's time: queues, stamps, the threads of a client library."""
    return {**watch.cpu_s, "rest": cpu_s - sum(watch.cpu_s.values())}


def _holder(case: Case, lease: int) -> tuple[int, int, int]:
    index = lease % case.producers
    return lease, index, index + 1


@contextmanager
def _producers(case: Case) -> Iterator[list[subprocess.Popen[str]]]:
    """Started, and ready to begin."""
    command = [sys.executable, __file__, "put", json.dumps(asdict(case))]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(index)], **pipes) for index in range(case.producers)]
    try:
        for process in processes:
            _heard(process)
        yield processes
        for process in processes:
            process.communicate("\n", timeout=WAIT_S)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _go(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def _heard(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


def _broker_s(case: Case) -> float:
    if not case.broker_pid:
        return 0.0
    used = psutil.Process(case.broker_pid).cpu_times()
    return float(used.user + used.system)


def _threads_s() -> dict[str, float]:
    """CPU seconds of this process's threads (Linux counts them in nanoseconds); those of a library together, as
    "client"."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    used: dict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # it has just ended
            used[names.get(int(task.name), "client")] += int((task / "schedstat").read_text().split()[0]) / 1e9
    return used


if __name__ == "__main__":
    wanted = Case(**json.loads(sys.argv[2]))
    put(wanted, int(sys.argv[3])) if sys.argv[1] == "put" else take(wanted)
