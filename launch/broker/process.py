"""The broker's process: starting it detached, recognising it again, ending it.

A pid alone names nobody for long, so it is kept with the process's start time and believed only together with it
and with our properties file on its command line.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import psutil

START_TIME_SLACK_S = 2.0  # the kernel's boot time, which start times are derived from, moves with clock corrections


def spawn(command: list[str], log: Path) -> psutil.Process:
    """Run ``command`` in a session of its own, its output appended to ``log``. It outlives us and is not our child."""
    script = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'
    shell = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(log), *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        start_new_session=True,
        timeout=30,
    )
    return psutil.Process(int(shell.stdout))


def find(pid: int, started_s: float, argument: str) -> psutil.Process | None:
    """The process with this pid if it is still the one that began at ``started_s`` (Unix time) with ``argument``."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started_s) < START_TIME_SLACK_S and argument in process.cmdline()
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end(process: psutil.Process, timeout_s: float) -> bool:
    """SIGTERM, wait ``timeout_s``, then SIGKILL. True when it ended by itself."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    if _gone(process, timeout_s):
        return True
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
    _gone(process, 10.0)
    return False


def _gone(process: psutil.Process, timeout_s: float) -> bool:
    # A process that nobody reaps (a container without an init) stays a zombie, which is as good as gone.
    deadline = time.monotonic() + timeout_s
    while alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
