"""What doctor checks of the machine itself: Python, packages, cores, memory, disk, torch, box2d, Java, ports, clock."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.observe.probe import ask

GIB = 1 << 30
OK, WARN, FAIL = "ok", "warn", "fail"
BROKER_PORT = 9092


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: ``level`` ok, warn or fail; ``right`` says what would be right, where it is not."""

    name: str
    level: str
    found: str
    right: str = ""


def check_python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    good = sys.version_info >= (3, 11)
    return Check("python", OK if good else FAIL, found, "" if good else "Python 3.11 or newer is needed")


def check_packages() -> Iterator[Check]:
    """Installed versions against the ranges of our own metadata; one line if all is well, else one a package."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in importlib.metadata.requires("headrace") or ()]
    except ImportError as e:
        yield Check("packages", FAIL, f"not known: {e}", "install headrace with pip install -e . or from its wheel")
        return
    good = []
    for requirement in wanted:
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if needed:
                yield Check("packages", FAIL, f"{requirement.name} is missing", f"pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            level = FAIL if needed else WARN
            yield Check("packages", level, f"{requirement.name} {version}", f"pip install '{requirement}'")
        elif needed:
            good.append(f"{requirement.name} {version}")
    yield Check("packages", OK, ", ".join(good))


def check_cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    limit = int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0] != "max" else float(cores)
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    found = f"{cores} usable, quota {limit:g}, OMP_NUM_THREADS {threads}"
    few = min(cores, limit) < 2
    return Check("cores", WARN if few else OK, found, "with 2 or more, actors and learner can overlap" if few else "")


def check_memory() -> Check:
    fields = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    free = int(fields.get("MemAvailable", "0 kB").split()[0]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
    if not fields:
        return Check("memory", WARN, "not known on this system", "have 2 GiB free")
    low = free < 2 * GIB
    return Check("memory", WARN if low else OK, f"{free / GIB:.1f} GiB available", "have 2 GiB free" if low else "")


def check_disk() -> Iterator[Check]:
    for path, need in ((Path.cwd(), 5.0), (Path("/dev/shm"), 0.25)):
        if path.exists():
            free = shutil.disk_usage(path).free / GIB
            level = OK if free >= need else WARN if free >= need / 10 else FAIL
            right = "" if level == OK else f"have {need:g} GiB free"
            yield Check("disk", level, f"{free:.1f} GiB free in {path}", right)


def check_torch() -> Check:
    answer = ask("torch")
    if "error" in answer:
        return Check("torch", FAIL, answer["error"], "install torch again; pytorch.org names the index to take")
    found = f"{answer['version']}, {answer['threads']} threads"
    if answer["devices"]:
        gpus = ", ".join(f"{d['name']} ({d['memory_bytes'] / GIB:.0f} GiB)" for d in answer["devices"])
        return Check("torch", OK, f"{found}, CUDA {answer['cuda']}: {gpus}")
    if Path("/dev/nvidia0").exists():
        found += f", built for CUDA {answer['cuda']}, cannot use this machine's NVIDIA device"
        return Check("torch", WARN, found, "install a torch built for CUDA, and a driver new enough for it")
    return Check("torch", OK, f"{found}, CPU only")


def check_environment() -> Check:
    answer = ask("environment")
    if "error" in answer:
        return Check("environment", FAIL, f"LunarLander-v3: {answer['error']}", "pip install 'gymnasium[box2d]'")
    return Check("environment", OK, f"LunarLander-v3 steps, gymnasium {answer['version']}")


def check_java() -> Check:
    """What `headrace broker` needs: Java 17 and Maven."""
    java, maven = _says("java", "-version"), _says("mvn", "--version")
    words = java.replace('"', " ").split()
    version = next((word for word in words if word[0].isdigit()), "")
    right = "`headrace broker` needs a Java runtime of version 17 or newer, and Maven; nothing else does"
    if not version or not maven:
        return Check("java", WARN, f"java {version or 'missing'}, maven {'there' if maven else 'missing'}", right)
    good = int(version.split(".")[0]) >= 17
    return Check("java", OK if good else WARN, f"java {version}, {maven}", "" if good else right)


def check_ports(expect_broker: bool) -> Check:
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
    except OSError as e:
        return Check("ports", FAIL, f"cannot listen on 127.0.0.1: {e.strerror}", "roles talk over loopback; allow it")
    with socket.socket() as broker:
        try:
            broker.bind(("127.0.0.1", BROKER_PORT))
        except OSError as e:
            if e.errno == errno.EADDRINUSE and not expect_broker:
                right = "if that is no broker of yours, start ours on another port"
                return Check("ports", WARN, f"127.0.0.1:{BROKER_PORT} (the broker's usual port) is taken", right)
    return Check("ports", OK, "loopback ports can be bound")


def check_clock() -> Check:
    """Nothing of ours orders by the clock; certificates and the time axis of plots do."""
    now_s, installed_s = time.time(), Path(__file__).stat().st_mtime
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < installed_s - 60:
        return Check("clock", WARN, f"{found} is before this file was installed", "set the clock (NTP)")
    return Check("clock", OK, found)


def _says(*command: str) -> str:
    """The first line a program says, "" where there is no such program or it does not work."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
