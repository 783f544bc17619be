"""A limit for the memory of an actor: environments are other people's code, and some of them leak.

The actor looks at itself, so that the limit holds for one that is run singly as well.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.launch.config import Config
from headrace.launch.stopping import Stop

#: What the smallest of actors takes: the libraries alone are 70 MB.
LEAST_BYTES = 96 << 20
_LOOK_S = 0.5
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def limit_bytes(config: Config, supervised: bool) -> int:
    """What an actor of this run may take; 0 for no limit. The share leaves as much again for the rest of the run."""
    if config.actors.memory_bytes or not supervised:
        return config.actors.memory_bytes
    return machine_bytes() // (config.actors.processes + 1)


def check(config: Config) -> None:
    """Raises :class:`UsageError` where a share is less than any actor takes: each would end as soon as it had begun."""
    if limit_bytes(config, supervised=True) >= LEAST_BYTES or config.actors.memory_bytes:
        return
    total, fit = machine_bytes(), max(1, machine_bytes() // LEAST_BYTES - 1)
    raise UsageError(
        f"actors.processes = {config.actors.processes:,}: at most {fit:,} fit into the {total / 2**30:.1f} GiB of this "
        f"machine; more environments a process: actors.workers, actors.envs; a limit of your own: actors.memory_bytes"
    )


def machine_bytes() -> int:
    """Memory of this machine, or of the container we are in where that is less."""
    total = _PAGE_BYTES * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def watch_memory(limit: int, stop: Stop) -> None:
    """From now on, ask for an end when this process and what it started take more than ``limit`` bytes (0: never)."""
    if limit:
        threading.Thread(target=_watch, args=(limit, stop), name="memory", daemon=True).start()


def _watch(limit: int, stop: Stop) -> None:
    while (taken := taken_bytes()) <= limit:
        time.sleep(_LOOK_S)
    took, allowed = f"{taken / 2**30:.2f} GiB", f"{limit / 2**30:.2f}"
    stop.because(f"took {took} of memory, actors.memory_bytes allows {allowed}: does the environment leak?")


def taken_bytes(pid: str = "self") -> int:
    """Resident memory of a process and of all that it started; 0 for one that has just ended."""
    folder = Path("/proc") / pid
    try:
        total = int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES
        children = [child for listed in folder.glob("task/*/children") for child in listed.read_text().split()]
    except OSError:
        return 0
    return total + sum(taken_bytes(child) for child in children)
