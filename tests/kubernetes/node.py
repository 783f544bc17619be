"""A Kubernetes of one node, of its own programs (programs.py), in namespaces of its own (apart.py)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import engine
from tests.cluster.engine import Missing, cache, room
from tests.cluster.images import ROOT

from . import images, parts, programs
from .apart import Apart, apart

GPUS = 4
#: Debian's package containernetworking-plugins, and where others put them.
_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
#: What a node needs beside our programs: program -> Debian's package.
_TOOLS = {
    "containerd": "containerd", "runc": "runc", "ipset": "ipset", "iptables": "iptables", "ip": "iproute2",
    "nsenter": "util-linux", "sysctl": "procps",
}  # fmt: skip
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Node:
    """``folder``: whatever it writes, and the programs' logs."""

    def __init__(self, where: Apart, folder: Path) -> None:
        self._where, self.folder = where, folder
        self._options = parts.options(folder)

    # --- commands --------------------------------------------------------------------------------------------------

    def run(self, line: str, timeout_s: float = 120.0, *, stdin: str = "") -> str:
        """A command as a person types it in a checkout; what it printed. It must end well."""
        code, said = self._where.run("bash", "-c", f"cd {ROOT} && {line}", timeout_s=timeout_s, stdin=stdin)
        assert code == 0, f"{line}\n{said[-4000:]}\n{self.state()}"
        return said

    def refused(self, line: str, *, stdin: str = "") -> str:
        """The same of one that must not end well."""
        code, said = self._where.run("bash", "-c", line, stdin=stdin)
        assert code != 0, f"{line}: not refused\n{said[-4000:]}"
        return said

    def holds(self, line: str) -> bool:
        """Whether it ends well."""
        return self._where.run("bash", "-c", line)[0] == 0

    @contextlib.contextmanager
    def meanwhile(self, line: str) -> Iterator[None]:
        """A command that goes on while inside."""
        command = self._where.command("timeout", "--kill-after=1", "600", *line.split())
        with subprocess.Popen(command, env=self._where.environment, stdout=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                self._where.run("pkill", "--exact", "--full", line.strip())
                process.wait(30)

    def get(self, what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(f"kubectl get {what} --output json"))
        return found

    def apply(self, *objects: dict[str, Any]) -> None:
        self.run("kubectl apply --filename -", stdin=yaml.safe_dump_all(objects))

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float) -> float:
        """Wait until ``condition`` is true; the seconds that took."""
        began_s = time.monotonic()
        while not condition():
            assert not self._where.ended(), self._where.ended()
            assert time.monotonic() - began_s < timeout_s, f"not within {timeout_s:g} s: {what}\n{self.state()}"
            time.sleep(0.5)
        return time.monotonic() - began_s

    def state(self) -> str:
        """For a test that fails."""
        show = (
            "kubectl get pods,jobs,pvc --all-namespaces --output wide; "
            "kubectl get events --all-namespaces --sort-by .lastTimestamp | tail -15; "
            "for pod in $(kubectl --namespace headrace get pods --output name); do "
            'echo "--- $pod"; kubectl --namespace headrace logs --tail 6 $pod; done'
        )
        return self._where.run("bash", "-c", show)[1][-12000:]

    # --- how it is started -----------------------------------------------------------------------------------------

    def start(self) -> None:
        parts.write_access(self.folder)
        parts.write_containerd(self.folder, _root(), _plugins(), images.PAUSE)
        parts.write_node(self.folder, self._where.cgroup)
        self._start_containerd()
        for name in ("etcd", "kube-apiserver"):
            self._start(name)
        self.wait(lambda: self.holds("kubectl get --raw /readyz"), "the API server", 180)
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns"):
            self._start(name)
        self.apply(*parts.names())
        self.wait(
            lambda: self.holds("kubectl wait node --all --for condition=Ready --timeout 1s"),
            "a node that is ready",
            180,
        )
        self._start("policies")
        capacity = json.dumps({"status": {"capacity": {"nvidia.com/gpu": str(GPUS)}}})
        self.run(f"kubectl patch node {parts.NAME} --subresource status --patch '{capacity}'")

    def _start(self, name: str) -> None:
        self._where.start(name, *self._options[name])

    def _start_containerd(self) -> None:
        """With the images, and without the containers of nodes that were killed."""
        with engine.serve() as docker:
            wanted = images.make(docker, self.folder)
            first = self._where.start("containerd", f"--config={self.folder}/containerd.toml")
            ctr = self._where.command("ctr", f"--address={self.folder}/containerd.sock", "--namespace=k8s.io")
            answers = [*ctr, "version"]
            self.wait(lambda: subprocess.run(answers, capture_output=True).returncode == 0, "containerd", 60)
            images.hand_over(docker, wanted, ctr)
        listed = subprocess.run([*ctr, "containers", "list", "--quiet"], capture_output=True, text=True, check=True)
        if listed.stdout.split():
            subprocess.run([*ctr, "containers", "delete", *listed.stdout.split()], check=True, capture_output=True)
            self._where.run("pkill", "--exact", "containerd")
            first.wait(60)
            self._where.start("containerd", f"--config={self.folder}/containerd.toml")


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Node]:
    """Raises :class:`Missing`."""
    if os.getuid() != 0:
        raise Missing("only root can start a Kubernetes node")
    search = os.pathsep.join((*os.environ["PATH"].split(os.pathsep), *_PATH))
    for tool, package in _TOOLS.items():
        if shutil.which(tool, path=search) is None:
            raise Missing(f"no {tool} on the path; on Debian and Ubuntu: apt-get install {package}")
    _plugins()
    if not _root().exists():
        room(30, "programs and images")
    built = programs.provide()
    environment = os.environ | {
        "PATH": os.pathsep.join((str(built), str(Path(sys.executable).parent), search)),
        "KUBECONFIG": str(folder / "admin.kubeconfig"),
    }
    _root().mkdir(parents=True, exist_ok=True)
    with (_root().parent / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one containerd a root
        with apart(folder, environment) as where:
            node = Node(where, folder)
            node.start()
            yield node


def _root() -> Path:
    return cache() / "kubernetes" / "containerd"


def _plugins() -> Path:
    for folder in _PLUGINS:
        if (folder / "bridge").exists():
            return folder
    raise Missing(
        "no plugins for the network of pods; on Debian and Ubuntu: apt-get install containernetworking-plugins"
    )
