"""A training that goes on: no process comes to hold more memory or descriptors.

HEADRACE_SOAK_MINUTES says for how long (default 30, at least 3); of a short one the slope is mostly noise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from tests.faults.run import Run

MINUTES = float(os.environ.get("HEADRACE_SOAK_MINUTES", "30"))
SAMPLE_EVERY_S = 2.0
#: Of the samples, those of the first part are the warm-up: allocators and buffers find their size.
WARM_UP_RATIO = 0.4
MB_PER_H = 10.0


@pytest.mark.faults_full
@pytest.mark.timeout(60 * MINUTES + 120)
def test_a_long_run_does_not_leak(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo", "run.log_every_s=1", "run.checkpoint_every_s=10", "actors.envs=8", "actors.fragment_steps=64")
    train = run.train()
    run.wait_until(lambda: all(run.metrics("actor", index) for index in range(2)), "all roles")
    pids = {"train": train.pid, "learner": run.pid("learner"), "paramserver": run.pid("paramserver"),
            "actor-0": run.pid("actor", 0), "actor-1": run.pid("actor", 1)}  # fmt: skip
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    memory: dict[str, list[int]] = {name: [] for name in processes}
    files: dict[str, list[int]] = {name: [] for name in processes}
    at_s: list[float] = []
    began_s = time.monotonic()
    while (now_s := time.monotonic() - began_s) < 60 * MINUTES:
        assert train.poll() is None, run.logs()
        at_s.append(now_s)
        for name, process in processes.items():
            memory[name].append(process.memory_info().rss)
            files[name].append(process.num_fds())
        time.sleep(SAMPLE_EVERY_S)
    warm = int(WARM_UP_RATIO * len(at_s))
    slopes = {name: float(np.polyfit(at_s[warm:], held[warm:], 1)[0]) * 3600 / 1e6 for name, held in memory.items()}
    opened = {name: (np.median(count[:warm]), np.median(count[warm:])) for name, count in files.items()}
    for name, slope in slopes.items():
        print(f"{name:12} {memory[name][-1] / 1e6:7.1f} MB, {slope:+6.2f} MB/h, descriptors {opened[name]}")
    assert all(process.is_running() for process in processes.values()), "somebody died"
    train.terminate()
    assert run.end(train) == (0, "")
    assert {name: slope for name, slope in slopes.items() if slope > MB_PER_H} == {}
    assert {name: count for name, count in opened.items() if count[1] > count[0]} == {}
