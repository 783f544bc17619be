"""The images that docker-compose.yml names, where nothing can be pulled: stand-ins under the same names, made from packages.

    python:3.11-slim-bookworm     Debian with Python, by debootstrap
    apache/kafka                  Kafka's jars, standins/kafka.Dockerfile
    prom/prometheus               Debian's package, standins/prometheus.Dockerfile
    headrace/actor, .../learner   deploy/docker/Dockerfile, as anybody builds them

Grafana has no stand-in. Where an engine can pull, everything is the real thing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from headrace.launch.broker import jars

from .engine import Engine, Missing

ROOT = Path(__file__).resolve().parents[2]
STANDINS = Path(__file__).with_name("standins")
PYTHON = "python:3.11-slim-bookworm"
OURS = {"headrace/actor:dev": "actor", "headrace/learner:dev": "learner"}
_AUTHORITIES = Path("/usr/local/share/ca-certificates")
_BUILD_S = 1800.0


def named(service: str) -> str:
    """The image that docker-compose.yml names for a service that is not ours."""
    found = re.search(rf"^  {service}:\n(?:    .*\n)*?    image: (\S+)", (ROOT / "docker-compose.yml").read_text(), re.M)
    assert found, service
    return found[1]


def provide(engine: Engine, checkout: Path) -> bool:
    """Have every image there, ours built from ``checkout``. Returns whether Grafana's is."""
    if not engine.own:
        for image in (PYTHON, *map(named, ("kafka", "prometheus", "grafana"))):
            if not engine.has(image):
                engine.docker("pull", "--quiet", image, timeout_s=_BUILD_S)
    else:
        _make_python(engine)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(STANDINS, folder, dirs_exist_ok=True)
            shutil.copytree(jars.resolve(), Path(folder) / "libs")
            for service in ("kafka", "prometheus"):
                _build(engine, Path(folder), f"{service}.Dockerfile", named(service))
    for image, target in OURS.items():
        index = [f"--build-arg=TORCH_INDEX={os.environ.get('TORCH_INDEX', '')}"] if engine.own else []
        _build(engine, checkout, "deploy/docker/Dockerfile", image, f"--target={target}", *index)
    return engine.has(named("grafana"))


def _build(engine: Engine, context: Path, file: str, image: str, *more: str) -> None:
    """Without BuildKit, which not every engine has; on the machine's own network, where its packages come from."""
    engine.environment["DOCKER_BUILDKIT"] = "0"
    engine.docker(
        "build", "--quiet", "--network=host", f"--file={context / file}", f"--tag={image}", *more, str(context),
        timeout_s=_BUILD_S,
    )  # fmt: skip


def _make_python(engine: Engine) -> None:
    """Debian with Python, and with the authorities that this machine's administrator trusts."""
    if engine.has(PYTHON):
        return
    if shutil.which("debootstrap") is None:
        raise Missing("no image can be pulled, and no debootstrap to make one; apt-get install debootstrap")
    with tempfile.TemporaryDirectory(prefix="debootstrap-") as folder:
        wanted = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", wanted, "bookworm", folder],
            check=True, capture_output=True, timeout=_BUILD_S,
        )  # fmt: skip
        for authority in _AUTHORITIES.glob("*.crt"):
            shutil.copy(authority, folder + str(_AUTHORITIES))
        for cached in (Path(folder) / "var/cache/apt/archives").glob("*.deb"):
            cached.unlink()
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as packed:
            engine.docker("import", "--change", 'CMD ["python3"]', "-", PYTHON, timeout_s=_BUILD_S, stdin=packed.stdout)
