"""What every figure is kept with: the machine, the versions, the commit, the date and the command.

save("ladder", {"rungs": [...]})  ->  bench/results/ladder.json
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PACKAGES = ("torch", "numpy", "gymnasium", "box2d", "envpool", "grpcio", "protobuf", "kafka-python", "confluent-kafka")


def record() -> dict[str, Any]:
    """CPU, cores, memory, GPUs, operating system, versions, commit (and whether the tree differs from it), load average
    of the last minute, date (UTC) and the command. Neither host names nor paths outside the repository."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _output("git", "rev-parse", "HEAD"),
        "uncommitted_changes": bool(
            _output("git", "status", "--porcelain", "--untracked-files=no", "--", ":!bench/results")
        ),
        "load_average": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": shlex.join(["python", *(relative(word) for word in sys.argv)]),
    }


def save(name: str, payload: dict[str, Any]) -> Path:
    """Write ``payload`` with the machine's record beside it to bench/results/{name}.json and return the path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"hardware": record(), **payload}, indent=1) + "\n")
    return path


def relative(word: str) -> str:
    """``word`` as seen from the repository where it is a path below it, the bare name where it is a path elsewhere."""
    if not word.startswith("/"):
        return word
    path = Path(word)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*argv: str) -> str:
    """A program's output, empty where the program is missing or fails."""
    try:
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


if __name__ == "__main__":
    print(json.dumps(record(), indent=1))
