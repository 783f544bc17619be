"""The programs of a Kubernetes node that packages do not have, built from their Go modules: programs/*/go.mod names the
versions. The first build takes many minutes; they stay in the cache folder, apart for each state of their module files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.engine import Missing, cache

MODULES = Path(__file__).with_name("programs")
KUBERNETES = "v1.34.2"
#: One program, whose name says which part it is (programs/kubernetes/main.go).
PARTS = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
#: Program -> its package, "." for one of our own.
_PACKAGES = {
    "kubernetes": ".",
    "pause": ".",
    "etcd": "go.etcd.io/etcd/server/v3",
    "coredns": "github.com/coredns/coredns",
    "policies": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
}
_VERSION = "k8s.io/component-base/version"
_BUILD_S = 3600.0


def provide() -> Path:
    """A folder with all of them. Raises :class:`Missing`."""
    folder = cache() / "kubernetes"
    folder.mkdir(exist_ok=True)
    for name, package in _PACKAGES.items():
        program = folder / f"{name}-{_state(name)}"
        if not program.exists():
            _build(name, package, program)
        _link(folder / name, program)
    for part in PARTS:
        _link(folder / part, folder / "kubernetes")
    return folder


def _state(name: str) -> str:
    """What changes when a module does."""
    digest = hashlib.sha256()
    for path in sorted((MODULES / name).iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _build(name: str, package: str, program: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise Missing("no go on the path to build Kubernetes from its modules; Go 1.25 or newer is needed")
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    values = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor}
    versions = " ".join(f"-X {_VERSION}.{key}={value}" for key, value in values.items())
    fresh = program.with_suffix(".new")
    print(f"building {name} from its Go module", flush=True)
    done = subprocess.run(
        [go, "build", "-trimpath", "-mod=readonly", "-ldflags", f"-s -w {versions}", "-o", str(fresh), package],
        cwd=MODULES / name, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True, timeout=_BUILD_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise Missing(f"{name} cannot be built from its Go module: {done.stderr[-1000:]}")
    fresh.rename(program)


def _link(link: Path, target: Path) -> None:
    fresh = link.with_suffix(".link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)
