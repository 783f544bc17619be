"""Which way to carry records between processes of one machine? Measures bench/local_candidates.py side by side.

    python bench/local_carrier.py [--sizes 64000,1000000,4000000] [--seconds 1.5] [--rounds 3] [--only "A;B"]
                                  [--json PATH]

Two producer processes, one consumer process; the whole path (encode, hand over, crc, decode). Candidates take turns
within each round; the table shows medians over the rounds. Three loads:

    flat out   producers put as fast as they can: MB/s, and CPU milliseconds a record over all three processes
    paced      20 records a second from each: median time from before put() to get() having it
    busy       the same, while the consumer computes in Python (holds the GIL): median and worst time put() takes,
               which is what an environment loop would stand still for
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from local_candidates import CANDIDATES

from headrace.common.types import Trajectory

PRODUCERS = 2
PERIOD_S = 0.05


@dataclass
class Load:
    """What one producer process does for ``seconds``: one record every ``period_s`` (0: flat out)."""

    candidate: str
    path: str
    size: int
    seconds: float
    period_s: float


def _trajectory(size: int) -> Trajectory:
    steps = size // (8 * 4 + 8 + 4 + 1 + 1 + 4)  # a LunarLander step: obs, action, reward, two flags, logp
    B = 16
    T = max(1, steps // B)
    arrays = {
        "obs": np.zeros((T + 1, B, 8), np.float32),
        "action": np.zeros((T, B), np.int64),
        "reward": np.zeros((T, B), np.float32),
        "terminated": np.zeros((T, B), bool),
        "truncated": np.zeros((T, B), bool),
        "behaviour_logp": np.zeros((T, B), np.float32),
    }
    return Trajectory("bench", 0, 0, 0, 0, 0, 0, "LunarLander-v3", "0" * 16, T, B, arrays)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def produce(load: Load) -> None:
    """Runs in a process of its own; prints one JSON line: records, CPU seconds, and each put's time."""
    send = CANDIDATES[load.candidate][0](load.path)
    base = _trajectory(load.size)
    stamp = dict(base.__dict__)
    puts: list[float] = []
    cpu, end = _cpu_s(), time.monotonic() + load.seconds
    while (now := time.monotonic()) < end:
        stamp["incarnation"] = time.monotonic_ns()
        send(Trajectory(**stamp))
        puts.append(time.monotonic() - now)
        if load.period_s:
            time.sleep(max(0.0, load.period_s - puts[-1]))
    cpu = _cpu_s() - cpu
    stamp["task_id"] = "end"
    send(Trajectory(**stamp))
    print(json.dumps({"cpu_s": cpu, "puts": puts}), flush=True)
    sys.stdin.read()  # the consumer closes it when everything has arrived


def _compute(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(10_000))


def consume(candidate: str, size: int, seconds: float, period_s: float, busy: bool) -> dict[str, float]:
    """One load on one candidate: the figures of its column in the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        get = CANDIDATES[candidate][1](path, PRODUCERS)
        load = [candidate, path, str(size), str(seconds), str(period_s)]
        children = [
            subprocess.Popen(
                [sys.executable, __file__, "--produce", *load], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(PRODUCERS)
        ]
        stop = threading.Event()
        if busy:
            threading.Thread(target=_compute, args=(stop,), daemon=True).start()
        latencies: list[float] = []
        nbytes, ended, first, cpu = 0, 0, 0.0, 0.0
        while ended < PRODUCERS:
            trajectory = get()
            now = time.monotonic_ns()
            if not first:
                first, cpu = now * 1e-9, _cpu_s()
            if trajectory.task_id == "end":
                ended += 1
            else:
                latencies.append((now - trajectory.incarnation) * 1e-9)
                nbytes += trajectory.nbytes
        wall, cpu = now * 1e-9 - first, _cpu_s() - cpu
        stop.set()
        reports = [json.loads(c.communicate(timeout=30)[0]) for c in children]
    puts = [p for r in reports for p in r["puts"]]
    return {
        "mb_s": nbytes / wall / 1e6,
        "records_s": len(latencies) / wall,
        "cpu_ms_record": 1e3 * (cpu + sum(r["cpu_s"] for r in reports)) / len(latencies),
        "latency_ms": 1e3 * statistics.median(latencies),
        "put_ms": 1e3 * statistics.median(puts),
        "put_worst_ms": 1e3 * max(puts),
    }


def measure(names: list[str], size: int, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    columns: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for _ in range(rounds):
        for name in columns:
            flat = consume(name, size, seconds, 0.0, busy=False)
            paced = consume(name, size, seconds, PERIOD_S, busy=False)
            busy = consume(name, size, seconds, PERIOD_S, busy=True)
            row = {k: flat[k] for k in ("mb_s", "records_s", "cpu_ms_record")}
            row |= {"latency_ms": paced["latency_ms"], "put_ms": paced["put_ms"]}
            row |= {f"busy_{k}": busy[k] for k in ("latency_ms", "put_ms", "put_worst_ms")}
            for key, value in row.items():
                columns[name].setdefault(key, []).append(value)
    return {n: {k: round(statistics.median(v), 3) for k, v in row.items()} for n, row in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64000,1000000,4000000", help="bytes of payload a record")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each load")
    parser.add_argument("--only", help="names of candidates, separated by semicolons; all if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    parser.add_argument("--produce", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.produce:
        candidate, path, size, seconds, period_s = args.produce
        return produce(Load(candidate, path, int(size), float(seconds), float(period_s)))
    names = [name for name in CANDIDATES if not args.only or name in args.only.split(";")]
    results = {}
    for size in map(int, args.sizes.split(",")):
        rows = results[size] = measure(names, size, args.seconds, args.rounds)
        print(f"\n{size / 1e6:g} MB a record, {PRODUCERS} producers, medians of {args.rounds}")
        keys = list(next(iter(rows.values())))
        print(" " * 20 + "".join(f"{k:>18}" for k in keys))
        for name, row in rows.items():
            print(f"{name:20}" + "".join(f"{row[k]:18.3f}" for k in keys), flush=True)
    if args.json:
        machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
        load = {"load_average_after": os.getloadavg()[0], "seconds": args.seconds, "rounds": args.rounds}
        args.json.write_text(json.dumps({"machine": machine, "run": load, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
