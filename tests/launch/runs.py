"""Real commands for tests: what a person would type, with a deadline, and everything they started gone afterwards."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def headrace(*arguments: str, timeout_s: float = 100.0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``headrace ARGUMENTS`` to its end. A command that is not done in time is killed (its roles end with it: they
    watch for their supervisor) and the test fails."""
    argv = [sys.executable, "-m", "headrace.launch.cli", *arguments]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            line = shlex.join(["headrace", *arguments])
            raise AssertionError(f"{line}: not done after {timeout_s:.0f} s\n{out}{err}") from None
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def train(preset: str, run_dir: Path, overrides: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """``headrace train``, without an evaluation unless ``arguments`` say otherwise; it must end well."""
    sets = [word for override in overrides for word in ("--set", override)]
    done = headrace("train", preset, "--run-dir", str(run_dir), *sets, *(arguments or ("--episodes", "0")))
    logs = "".join(f"--- {log.name}\n{log.read_text()}" for log in sorted(run_dir.glob("logs/*")))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    return done
