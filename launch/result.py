"""RESULT of a run, for programs: what it came to, and all it takes to know where the figures are from.

{"evaluation": {...} | null, "train_s", "steps_per_s", "env_steps", "ended_by": "steps" | "solved",
 "versions": {package: version}, "commit": sha | null, "hardware": {...}, "seeds": {...}}
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from headrace.common import durable
from headrace.common.build_info import COMMIT
from headrace.common.seeding import EVALUATION_BASE, SELECTION_BASE
from headrace.launch.config import Config
from headrace.launch.evaluate import Evaluation
from headrace.launch.run_files import RESULT
from headrace.observe.rows import Row

SOLVED = "solved"
#: What the figures of a run depend on besides Python.
_PACKAGES = ("headrace", "torch", "numpy", "gymnasium", "box2d", "ale-py", "envpool", "onnxruntime", "grpcio",
             "kafka-python")  # fmt: skip
_ANSWER_S = 5.0


def write(config: Config, run_dir: Path, rows: Sequence[Row], found: Evaluation | None) -> None:
    """Leave result.json. Raises OSError where it cannot be written."""
    train_s, env_steps = (rows[-1]["time_s"], rows[-1]["env_steps"]) if rows else (0.0, 0)
    if found is not None and found.env_steps is not None:
        env_steps = found.env_steps  # the checkpoint's: rows may have been lost with a full disk
    content: dict[str, Any] = {
        "evaluation": None if found is None else found.to_json(),
        "train_s": train_s,
        "steps_per_s": env_steps / max(train_s, 1e-9),
        "env_steps": env_steps,
        "ended_by": "steps" if env_steps >= config.run.total_steps else SOLVED,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(config),
        "seeds": {"run": config.run.seed, "evaluation_first": EVALUATION_BASE, "selection_first": SELECTION_BASE},
    }
    durable.replace_file(run_dir / RESULT, (json.dumps(content, indent=2) + "\n").encode())


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed; nothing is imported to find out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Of the image, else of the checkout this code stands in, with "+changes" where files differ from it; None for an
    installed package."""
    if said := os.environ.get(COMMIT):
        return said
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    sha = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{sha}+changes" if sha and changed else sha or None


def _git(root: Path, *words: str) -> str:
    return _said("git", "-C", str(root), *words)


def _said(*command: str) -> str:
    """What a program of this machine prints; "" where there is none, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def hardware(config: Config) -> dict[str, Any]:
    """Of the machine that this is written on, which under `headrace train` is the machine of the run."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines(),
        "system": platform.platform(),
        "learner_device": config.learner.device,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
