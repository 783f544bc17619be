"""Processes apart from the machine's others: mounts, network, processes and control groups of their own, so that
whatever a Kubernetes node does to a machine is gone when they are.

They end with the one that holds it all, and that one when its input closes: also where the tests are killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from tests.cluster.engine import Missing

#: The address of the node in its own network. A bridge: not every kernel has `dummy` links.
ADDRESS = "10.20.0.1"
_HOLD = f"""set -eu
for folder in /run /var/log /var/lib/cni; do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
ip link set lo up
ip link add node0 type bridge
ip address add {ADDRESS}/24 dev node0
ip link set node0 up
ip route add default via 10.20.0.254 dev node0
sysctl -q -w net.ipv4.ip_forward=1
# Packets between pods of one bridge meet the rules as well.
sysctl -q -w net.bridge.bridge-nf-call-iptables=1
echo ready
cat >/dev/null
"""
_CGROUPS = Path("/sys/fs/cgroup")


class Apart:
    """What is started here sees none of the machine's processes and connections. ``logs``: a file for each program."""

    def __init__(self, holder: psutil.Process, logs: Path, environment: Mapping[str, str], cgroup: str) -> None:
        self.logs, self.environment, self.cgroup = logs, dict(environment), cgroup
        self.going_on: dict[str, subprocess.Popen[bytes]] = {}
        self._enter = ["nsenter", f"--target={holder.pid}", "--mount", "--net", "--pid", "--ipc", "--uts"]

    def command(self, program: str, *arguments: str) -> list[str]:
        """What runs a program in here."""
        path = shutil.which(program, path=self.environment["PATH"])
        assert path is not None, program
        return [*self._enter, "--", path, *arguments]

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A program that goes on until everything ends."""
        with (self.logs / f"{program}.log").open("ab") as log:
            self.going_on[program] = subprocess.Popen(
                self.command(program, *arguments),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.going_on[program]

    def ended(self) -> str:
        """The first program that ended, and its last words; empty for none."""
        for program, process in self.going_on.items():
            if process.poll() is not None:
                words = (self.logs / f"{program}.log").read_text(errors="replace").splitlines()[-3:]
                return "\n".join([f"{program} ended with {process.returncode}", *words])
        return ""

    def run(self, program: str, *arguments: str, timeout_s: float = 120.0, stdin: str = "") -> tuple[int, str]:
        """A command to its end: its exit code, and what it printed."""
        done = subprocess.run(
            self.command(program, *arguments), env=self.environment, input=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=timeout_s,
        )  # fmt: skip
        return done.returncode, done.stdout


@contextlib.contextmanager
def apart(folder: Path, environment: Mapping[str, str]) -> Iterator[Apart]:
    """Raises :class:`Missing` where the machine does not allow it."""
    name = f"headrace-{os.getpid()}"
    _make_cgroup(name)
    holder = subprocess.Popen(
        ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc", "bash",
         "-c", _HOLD],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stderr is not None
    made = None
    try:
        if holder.stdout.readline() != b"ready\n":
            raise Missing(f"no namespaces of our own: {holder.stderr.read().decode().strip()}")
        (first,) = psutil.Process(holder.pid).children()
        made = Apart(first, folder, environment, name)
        yield made
    finally:
        holder.stdin.close()
        holder.wait(60)
        for process in made.going_on.values() if made else ():
            process.wait(60)
        holder.stdout.close()
        holder.stderr.close()
        _remove_cgroup(name)


def _make_cgroup(name: str) -> None:
    """Version 2: one tree; version 1: one for each controller."""
    if (_CGROUPS / "cgroup.controllers").exists():
        (_CGROUPS / name).mkdir()
        controllers = (_CGROUPS / name / "cgroup.controllers").read_text().split()
        (_CGROUPS / name / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))
        return
    for tree in _trees():
        (tree / name).mkdir()
        for of in ("cpuset.cpus", "cpuset.mems"):
            if (tree / of).exists():
                (tree / name / of).write_text((tree / of).read_text())


def _remove_cgroup(name: str) -> None:
    for tree in (*_trees(), _CGROUPS):
        for folder in sorted((tree / name).glob("**/"), reverse=True):
            until_s = time.monotonic() + 10
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:  # what was in it is still ending
                    if time.monotonic() > until_s:
                        raise
                    time.sleep(0.1)


def _trees() -> list[Path]:
    return [path for path in _CGROUPS.iterdir() if (path / "cgroup.procs").exists() and path.is_dir()]
