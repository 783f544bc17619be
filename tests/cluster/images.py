"""The images that docker-compose.yml names. Where nothing can be pulled: stand-ins of the same names, from packages.

    python:3.11-slim-bookworm     Debian with Python, by debootstrap
    apache/kafka                  Kafka's jars, standins/kafka.Dockerfile
    prom/prometheus               Debian's package, standins/prometheus.Dockerfile
    headrace/actor, .../learner   deploy/docker/Dockerfile, as anybody builds them

Grafana has no stand-in. What an engine can pull is the real thing.
"""

from __future__ import annotations

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
#: By target, the largest of the stages too: what has a name stays from run to run.
OURS = {"headrace/actor:dev": "actor", "headrace/build-torch:dev": "build-torch", "headrace/learner:dev": "learner"}
#: Where packages come from, as docker-compose.yml hands them on.
INDEXES = ("INDEX_URL", "TORCH_INDEX")
_AUTHORITIES = Path("/usr/local/share/ca-certificates")
_BUILD_S = 1800.0


def named(service: str) -> str:
    """The image that docker-compose.yml names for a service that is not ours."""
    found = re.search(
        rf"^  {service}:\n(?:    .*\n)*?    image: (\S+)", (ROOT / "docker-compose.yml").read_text(), re.M
    )
    assert found, service
    return found[1]


def provide(engine: Engine, checkout: Path) -> bool:
    """Have every image there, ours built from ``checkout``. Returns whether Grafana's is."""
    if engine.own:
        engine.docker("image", "prune", "--force", timeout_s=600)  # what the run before built has no name any more
    if not _have(engine, PYTHON):
        _make_python(engine)
    for service in ("kafka", "prometheus"):
        if not _have(engine, named(service)):
            _make_standin(engine, service)
    for image, target in OURS.items():
        indexes = [f"--build-arg={key}={engine.environment[key]}" for key in INDEXES if key in engine.environment]
        _build(engine, checkout, "deploy/docker/Dockerfile", image, f"--target={target}", *indexes)
    return _have(engine, named("grafana"))


def _have(engine: Engine, image: str) -> bool:
    """Whether an image is there, or can be pulled."""
    if engine.has(image):
        return True
    if engine.own:
        return False
    pull = ["docker", "pull", "--quiet", image]
    return subprocess.run(pull, env=engine.environment, capture_output=True, timeout=_BUILD_S).returncode == 0


def _make_standin(engine: Engine, service: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(STANDINS, folder, dirs_exist_ok=True)
        if service == "kafka":
            shutil.copytree(jars.resolve(), Path(folder) / "libs")
        _build(engine, Path(folder), f"{service}.Dockerfile", named(service))


def _build(engine: Engine, context: Path, file: str, image: str, *more: str) -> None:
    """Without BuildKit, which not every engine has; on the machine's own network, where its packages come from."""
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
