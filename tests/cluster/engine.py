"""A Docker engine with compose v2 for the tests: yours where one answers, else one of our own.

Our own is Debian's `dockerd` (package docker.io), started with a data root, sockets and a pid file apart from any
other's and ended with the tests; images stay in the cache folder. Compose v2, where `docker compose` is not there, is
built from its Go module.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from headrace.launch.broker.jars import cache_dir

COMPOSE = "v2.40.3"
_START_S, _STOP_S = 60.0, 60.0


class Missing(Exception):
    """There is no engine, and none of ours can be started: says why."""


class Engine:
    """``environment``: of every docker command. ``own``: nobody else uses it, and nothing can be pulled."""

    def __init__(self, environment: Mapping[str, str], own: bool) -> None:
        self.environment, self.own = dict(environment), own

    def docker(self, *arguments: str, timeout_s: float = 120.0, **more: object) -> str:
        """Run ``docker ARGUMENTS``; what it printed. It must end well."""
        done = subprocess.run(
            ["docker", *arguments], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout_s, **more,  # type: ignore[call-overload]
        )  # fmt: skip
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout[-4000:]}"
        return str(done.stdout)

    def has(self, image: str) -> bool:
        found = subprocess.run(["docker", "image", "inspect", image], env=self.environment, capture_output=True)
        return found.returncode == 0


def cache() -> Path:
    """Outside of the tree: images and what is built for them last from run to run."""
    folder = cache_dir() / "cluster"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def room(needed_gb: int, what: str) -> None:
    """Raises :class:`Missing` where the cache folder's disk has less free than they will take."""
    free_gb = shutil.disk_usage(cache()).free / 1e9
    if free_gb < needed_gb:
        raise Missing(f"{what} take {needed_gb} GB in {cache()}, and {free_gb:.0f} GB are free")


@contextlib.contextmanager
def serve() -> Iterator[Engine]:
    """Raises :class:`Missing`."""
    if shutil.which("docker") is None:
        raise Missing("no docker on the path; on Debian and Ubuntu: apt-get install docker.io")
    if _answers(os.environ):
        yield Engine(_with_compose(os.environ), own=False)
        return
    dockerd = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if dockerd is None:
        raise Missing("no Docker engine answers, and there is no dockerd to start one; apt-get install docker.io")
    if os.getuid() != 0:
        raise Missing("no Docker engine answers, and only root can start one")
    if not (cache() / "docker").exists():
        room(35, "images")
    environment = _with_compose(os.environ)
    with (cache() / "engine.lock").open("w") as lock, tempfile.TemporaryDirectory(prefix="headrace-engine-") as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one engine a data root
        with _started(dockerd, Path(folder)) as socket:
            # Where no image can be pulled, torch's own index is not to be reached either.
            torch = {"TORCH_INDEX": os.environ.get("TORCH_INDEX", "")}
            yield Engine({**environment, **torch, "DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}, own=True)


@contextlib.contextmanager
def _started(dockerd: str, folder: Path) -> Iterator[Path]:
    """Our own engine: the socket it answers on."""
    socket, log = folder / "docker.sock", cache() / "dockerd.log"
    command = [
        dockerd, f"--host=unix://{socket}", f"--data-root={cache() / 'docker'}", f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'docker.pid'}", "--log-level=warn", "--bridge=none",
    ]  # fmt: skip
    with log.open("w") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        until_s = time.monotonic() + _START_S
        while not _answers({**os.environ, "DOCKER_HOST": f"unix://{socket}"}):
            if process.poll() is not None or time.monotonic() > until_s:
                raise Missing(f"dockerd does not start on this machine: {log}: {_last_line(log)}")
            time.sleep(0.2)
        yield socket
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _unmount_below(folder)


def _unmount_below(folder: Path) -> None:
    """An engine that ended leaves the mount of its network namespace behind."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted((place for place in mounted if place.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=True)


def _answers(environment: Mapping[str, str]) -> bool:
    try:
        asked = ["docker", "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(asked, env=dict(environment), capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


# --- compose -------------------------------------------------------------------------------------------------------


def _with_compose(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which `docker compose` is there."""
    if subprocess.run(["docker", "compose", "version"], env=dict(environment), capture_output=True).returncode == 0:
        return dict(environment)
    plugins = cache() / "config" / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    link = plugins / "docker-compose"
    link.unlink(missing_ok=True)
    link.symlink_to(_built_compose())
    return {**environment, "DOCKER_CONFIG": str(plugins.parent)}


def _built_compose() -> Path:
    program = cache() / f"docker-compose-{COMPOSE}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise Missing(
            "`docker compose` is not there, and no go on the path to build it; install Docker's compose plugin"
        )
    module = f"github.com/docker/compose/v2/cmd@{COMPOSE}"
    with tempfile.TemporaryDirectory(prefix="compose-", dir=cache()) as folder:
        fresh = Path(folder) / "docker-compose"
        for command in (
            [go, "mod", "init", "compose"],
            [go, "get", "-tool", module],
            [go, "build", "-trimpath", "-ldflags", f"-s -w -X github.com/docker/compose/v2/internal.Version={COMPOSE}",
             "-o", str(fresh), module.partition("@")[0]],
        ):  # fmt: skip
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True, timeout=900
            )
            if done.returncode != 0:
                raise Missing(f"compose cannot be built: {' '.join(command[:3])}: {done.stderr[-500:]}")
        fresh.rename(program)
    return program
