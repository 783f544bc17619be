"""Draws the dashboard in headless Chromium with Grafana's published components (render/), from a real Prometheus.

node_modules (650 MB) and the bundle are made once, in the cache folder; the lock file and the sources name them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.launch.broker.jars import cache_dir

from .board import DASHBOARD

RENDER = Path(__file__).with_name("render")
WIDTH = 1600
#: As server.py has it.
SCRAPE_S = 1
#: Debian's packages.
NEEDED = {"node": "nodejs", "npm": "npm", "chromium": "chromium"}


def missing() -> list[str]:
    """The Debian packages that are not here."""
    return [package for program, package in NEEDED.items() if shutil.which(program) is None]


@dataclass(frozen=True)
class Picture:
    """What to draw: the last ``seconds`` of what a Prometheus knows; and what to keep: ``png`` of ``rows`` of the grid
    (0: all)."""

    prometheus: str
    seconds: float
    png: Path
    rows: int = 0
    dashboard: Path = DASHBOARD


def draw(picture: Picture, folder: Path) -> Any:
    """The page's report: of every panel its problems, whether it was empty, and its targets."""
    now_s = time.time()
    modules = _modules()
    options = {
        "modules": str(modules),
        "dist": str(_bundle(modules)),
        "chromium": shutil.which("chromium"),
        "dashboard": str(picture.dashboard),
        "prometheus": picture.prometheus,
        "from_ms": round((now_s - picture.seconds) * 1000),
        "to_ms": round(now_s * 1000),
        "scrape_s": SCRAPE_S,
        "width": WIDTH,
        "png": str(picture.png),
        "rows": picture.rows,
    }
    (folder / "options.json").write_text(json.dumps(options))
    done = _run(["node", str(RENDER / "shoot.mjs"), str(folder / "options.json")], timeout_s=180)
    report = json.loads(done)
    assert "failed" not in report, report["failed"]
    return report


def look(page: Path, folder: Path, widths: Sequence[int] = (1200, 400)) -> Any:
    """Open an HTML file on a light and a dark screen of each width: what it asked for, what failed, how readable it is
    (render/page.mjs). Leaves a picture of each in ``folder``."""
    options = {
        "modules": str(_modules()),
        "chromium": shutil.which("chromium"),
        "page": str(page),
        "widths": list(widths),
        "png": str(folder),
    }
    (folder / "look.json").write_text(json.dumps(options))
    return json.loads(_run(["node", str(RENDER / "page.mjs"), str(folder / "look.json")], timeout_s=120))


def _modules() -> Path:
    """node_modules as the lock file says."""
    lock = RENDER / "package-lock.json"
    folder = cache_dir() / f"render-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="render-", dir=folder.parent) as fresh:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(RENDER / name, fresh)
            # No script of a package is run.
            _run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                cwd=fresh,
                timeout_s=900,
            )
            made = Path(fresh) / "made"
            made.mkdir()
            (Path(fresh) / "node_modules").rename(made / "node_modules")
            _move(made, folder)
    return folder / "node_modules"


def _bundle(modules: Path) -> Path:
    sources = sorted([*(RENDER / "src").iterdir(), RENDER / "build.mjs"])
    names = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    folder = modules.parent / f"bundle-{names}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="bundle-", dir=modules.parent) as fresh:
            _run(["node", str(RENDER / "build.mjs"), str(modules), f"{fresh}/made"], timeout_s=300)
            _move(Path(fresh) / "made", folder)
    return folder


def _move(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():  # else somebody else was faster with the same
            raise


def _run(command: list[str], timeout_s: float, cwd: str | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, env=os.environ)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
