"""The images that tests/cluster makes, handed from the Docker engine to the node's containerd: each once,
for it keeps them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cluster import images as cluster
from tests.cluster.engine import Engine, cache

PAUSE = "docker.io/headrace/pause:test"
#: What has no GPU stands in for the learner's image that has one.
_ALIASES = {"docker.io/headrace/learner:dev": "docker.io/headrace/learner-cuda:dev"}
_PAUSE_FILE = 'FROM scratch\nCOPY pause /\nUSER 65535\nENTRYPOINT ["/pause"]\n'


def make(docker: Engine, folder: Path) -> list[str]:
    """Have every image at the engine; their names."""
    cluster.provide(docker, cluster.ROOT)
    (folder / "pause").mkdir()
    (folder / "pause" / "pause").write_bytes((cache() / "kubernetes" / "pause").read_bytes())
    (folder / "pause" / "pause").chmod(0o755)
    (folder / "pause" / "Dockerfile").write_text(_PAUSE_FILE)
    docker.docker("build", "--quiet", f"--tag={PAUSE}", str(folder / "pause"))
    ours = [name for name, target in cluster.OURS.items() if not target.startswith("build-")]
    return [*ours, *(cluster.named(service) for service in ("kafka", "prometheus")), PAUSE]


def hand_over(docker: Engine, names: list[str], ctr: list[str]) -> None:
    """``ctr``: the command that talks to the node's containerd."""
    record = cache() / "kubernetes" / "images.json"
    held = json.loads(record.read_text()) if record.exists() else {}
    for name in names:
        state = docker.docker("image", "inspect", "--format", "{{.Id}}", name).strip()
        if held.get(name) != state:
            _copy(docker, name, ctr)
            record.write_text(json.dumps(held := held | {name: state}))
    for name, alias in _ALIASES.items():
        subprocess.run([*ctr, "images", "tag", "--force", name, alias], check=True, capture_output=True)


def _copy(docker: Engine, name: str, ctr: list[str]) -> None:
    with subprocess.Popen(["docker", "save", name], env=docker.environment, stdout=subprocess.PIPE) as saved:
        done = subprocess.run(
            [*ctr, "images", "import", "-"],
            stdin=saved.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert (done.returncode, saved.returncode) == (0, 0), f"{name}: {done.stdout}"
