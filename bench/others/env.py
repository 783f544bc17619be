"""Virtual environments of the other systems: ``ensure("sb3")`` makes ``.venvs/sb3`` once and returns its Python.

Made by uv where it is installed, else by venv and pip; made again when its requirements file has changed. Sample
Factory needs numpy < 2, whose wheels stop at Python 3.12.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENVS = HERE.parents[1] / ".venvs"


def ensure(name: str) -> Path:
    """The Python of the environment of ``requirements-{name}.txt``, made or brought up to date first. Raises
    CalledProcessError with the installer's own words on stderr when it could not be made."""
    requirements = HERE / f"requirements-{name}.txt"
    venv = VENVS / name
    python, stamp = venv / "bin" / "python", venv / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {venv.relative_to(VENVS.parent)} from {requirements.name}", file=sys.stderr, flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    uv = shutil.which("uv")
    if uv:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(venv))
        _run(uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements))
    else:
        _run(sys.executable, "-m", "venv", str(venv))
        _run(str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements))
    stamp.write_text(wanted)
    return python


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=1800, stdout=sys.stderr)


if __name__ == "__main__":
    for wanted_name in sys.argv[1:] or ["sb3", "sample_factory"]:
        print(ensure(wanted_name))
