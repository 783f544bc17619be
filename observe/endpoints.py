"""endpoints/<role>-<index>.json: where each role process of a run shows its metrics."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from headrace.common.errors import UsageError

FOLDER = "endpoints"
_log = logging.getLogger("headrace.files")


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One role process: ``metrics`` is the address its /metrics and /healthz stand under. ``pid`` 0: not known here."""

    role: str
    index: int
    pid: int
    metrics: str


def announce(run_dir: Path, role: str, index: int, url: str) -> Path:
    """Say where this process shows its metrics; takes the place of its predecessor's word. Returns the file's place. A
    word that cannot be written (a full disk) is logged: nothing but looking depends on it."""
    path = run_dir / FOLDER / f"{role}-{index}.json"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"role": role, "index": index, "pid": os.getpid(), "metrics": url}) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        _log.warning("%s: not written (%s); `headrace status` will not see this process", path, error.strerror)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def withdraw(path: Path) -> None:
    """Take the word back at a clean end, so that an endpoint that does not answer is a process that died."""
    with contextlib.suppress(OSError):
        path.unlink()


def forget_dead(run_dir: Path) -> None:
    """Take away the words of processes of this machine that are gone, and the folder if no others are in it."""
    for path in (run_dir / FOLDER).glob("*.json"):
        endpoint = _load(path)
        if endpoint is not None and not alive(endpoint.pid):
            withdraw(path)
    with contextlib.suppress(OSError):
        (run_dir / FOLDER).rmdir()


def alive(pid: int) -> bool:
    """Whether this machine has such a process (which may be another one by now)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # or no pid at all, in a file that is damaged
        return False
    except PermissionError:
        pass
    return pid > 0


def read(run_dir: Path) -> list[Endpoint]:
    """Every process that announced itself, by role and index. Raises :class:`UsageError` for a file that is not one."""
    found = (_load(path) for path in (run_dir / FOLDER).glob("*.json") if not path.name.startswith("."))
    return sorted(endpoint for endpoint in found if endpoint is not None)


def _load(path: Path) -> Endpoint | None:
    """None: withdrawn while one looked."""
    try:
        data = json.loads(path.read_text())
        return Endpoint(str(data["role"]), int(data["index"]), int(data["pid"]), str(data["metrics"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise UsageError(f'{path}: not an endpoint; it should hold {{"role", "index", "pid", "metrics"}}') from e
