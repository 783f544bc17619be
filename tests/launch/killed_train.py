"""Trainings that are killed at random moments, and what is left of each: for a test and for bench/train_kills.py."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

#: The first second is when processes are being started; well before the last, a run is in full swing.
_LATEST_S = 6.0
#: Others are to be gone by then; the learner has a last checkpoint to write.
ENDED_S, _LEARNER_S = 5.0, 60.0
_ENV = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_SETTINGS = ("run.checkpoint_every_s=0.5", "algorithm.hidden=[16]", "learner.device=cpu", "actors.envs=2")


@dataclass(frozen=True)
class Killed:
    """One training, killed ``after_s``, when it had ``processes``. ``late``: roles still there ENDED_S later."""

    after_s: float
    processes: int
    late: tuple[str, ...]
    ended_after_s: float


def kill_many(folder: Path, kills: int, rng: random.Random, side_by_side: int = 2) -> list[Killed]:
    """Start and kill ``kills`` trainings, whose TMPDIR is ``folder``/tmp."""
    (folder / "tmp").mkdir()
    found: list[Killed] = []
    while len(found) < kills:
        batch = []
        for number in range(len(found), min(kills, len(found) + side_by_side)):
            moment_s = rng.uniform(0.0, rng.choice((1.0, _LATEST_S)))
            batch.append((folder / str(number), start(folder, folder / str(number)), time.monotonic(), moment_s))
        for run_dir, train, began_s, moment_s in sorted(batch, key=lambda started: started[3]):
            time.sleep(max(0.0, began_s + moment_s - time.monotonic()))
            found.append(_kill(run_dir, train, began_s))
    return found


def start(folder: Path, run_dir: Path, *more: str) -> subprocess.Popen[bytes]:
    """`headrace train` in ``run_dir``; ``more`` replaces the length of the run."""
    settings = [word for setting in (*_SETTINGS, "run.total_steps=100_000_000") for word in ("--set", setting)]
    argv = ["train", *(more or ["cartpole-ppo", *settings]), "--run-dir", str(run_dir), "--episodes", "0"]
    with (folder / "out").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "headrace.launch.cli", *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=_ENV | {"TMPDIR": str(folder / "tmp")},
        )


def _kill(run_dir: Path, train: subprocess.Popen[bytes], began_s: float) -> Killed:
    after_s, processes = time.monotonic() - began_s, len(roles(run_dir)) - 1  # all but train itself
    train.kill()
    train.wait()
    killed_s, late = time.monotonic(), None
    while left := roles(run_dir):
        ended_after_s = time.monotonic() - killed_s
        if late is None and ended_after_s > ENDED_S:
            late = tuple(left)
        if ended_after_s > _LEARNER_S:
            break
        time.sleep(0.02)
    return Killed(round(after_s, 3), max(0, processes), late or (), round(time.monotonic() - killed_s, 3))


def roles(run_dir: Path) -> list[str]:
    """Of the processes that were started for a run and live."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if str(run_dir) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(next((w for w in words if w in ("train", "learner", "actor", "paramserver")), "?"))
    return found


def pids(folder: str) -> list[int]:
    """Of whatever of any training below ``folder`` is left."""
    found = psutil.process_iter(["pid", "cmdline"])
    return [p.info["pid"] for p in found if any(w.startswith(f"{folder}/") for w in p.info["cmdline"] or [])]
