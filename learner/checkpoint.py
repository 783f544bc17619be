"""Checkpoints: directories that are either complete or not there, whatever kills the process and whenever.

    root/
      lock                    held (flock) by the one learner that may write here; holds its pid
      epoch.json              how often a learner was started here
      best.json               which checkpoint evaluated best, and its score
      tmp-<uuid>/             being written, or being removed
      ckpt-<version>/         info.json · <part>.json + <part>.safetensors per part · manifest.json (sizes and sha256)

    mkdir tmp -> write, fsync each file -> manifest last -> fsync tmp -> rename to ckpt -> fsync root -> remove old ones

Nothing is read that the manifest does not vouch for, and nothing is ever unpickled. Evaluators read without the lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
import safetensors.numpy

from headrace.algorithms.base import State
from headrace.common import durable
from headrace.common.errors import CheckpointFailed, UsageError
from headrace.common.metrics import Metrics

FORMAT = 1
_NAME = re.compile(r"ckpt-(\d{12})(?:-(\d+))?")
_PART = re.compile(r"[a-z][a-z0-9_]*")
_log = logging.getLogger("headrace.checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. ``info``: what identifies and counts; ``parts``: the states to restore, by name."""

    path: Path
    step: int
    info: Mapping[str, Any]
    parts: Mapping[str, State]


class Damaged(UsageError):
    """A checkpoint that is not what its manifest says."""


# --- reading: needs no lock ----------------------------------------------------------------------------------------


def load(path: Path, expect: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read and verify the checkpoint in ``path``.

    Raises :class:`UsageError` in one line when it is damaged, of an unknown format, or when ``info[key]`` differs from
    ``expect[key]`` for any key (``run_id`` of another run, ``network`` of another architecture).
    """
    manifest = _manifest(path)
    if manifest["format"] != FORMAT:
        raise UsageError(f"checkpoint {path}: format {manifest['format']!r}, this version reads format {FORMAT}")
    files = {name: _verified(path, name, entry) for name, entry in manifest["files"].items()}
    try:
        info = json.loads(files["info.json"])
        parts = {
            name: State(
                safetensors.numpy.load(files[f"{name}.safetensors"]),
                json.loads(files[f"{name}.json"]),
            )
            for name in manifest["parts"]
        }
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise Damaged(f"checkpoint {path}: unreadable: {error}") from error
    for key, value in (expect or {}).items():
        wanted = json.loads(json.dumps(value))
        if info.get(key) != wanted:
            raise UsageError(f"checkpoint {path}: {key} is {info.get(key)!r}, but this run has {wanted!r}")
    return Checkpoint(path, manifest["step"], info, parts)


def latest(root: Path, expect: Mapping[str, Any] | None = None) -> Checkpoint | None:
    """The newest checkpoint under ``root`` that verifies; damaged ones are logged in a line each and passed over.

    Newest is by learner epoch, then step: after going back to an older one, what was abandoned stays abandoned. Raises
    :class:`UsageError` where ``expect`` is not met: that is another run's folder, not damage.
    """
    newest_first = reversed(_ordered(root))
    for path in sorted(newest_first, key=lambda p: _epoch(p) >= 0):  # those without a manifest first, to be reported
        try:
            return load(path, expect)
        except Damaged as error:
            _log.warning("%s; trying the one before", error)
    return None


def best(root: Path) -> tuple[Path, float] | None:
    """The checkpoint marked best and its score, if one is marked."""
    mark = _read_json(root / "best.json")
    return None if mark is None else (root / mark["name"], float(mark["score"]))


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest, once its own hash is right: what it says has the form that we write."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        sha256 = manifest.pop("sha256")
    except OSError as error:
        raise Damaged(f"checkpoint {path}: no readable manifest.json ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"checkpoint {path}: manifest.json is damaged") from error
    if _sha256(_json_bytes(manifest)) != sha256:
        raise Damaged(f"checkpoint {path}: manifest.json is damaged")
    return dict(manifest)


def _verified(path: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    """The content of one file, once its size and hash are what the manifest says."""
    try:
        have_bytes = (path / name).stat().st_size
        if have_bytes != entry["bytes"]:
            raise Damaged(f"checkpoint {path}: {name} has {have_bytes} bytes, its manifest says {entry['bytes']}")
        content = (path / name).read_bytes()
    except OSError as error:
        raise Damaged(f"checkpoint {path}: {name} cannot be read ({error.strerror})") from error
    if _sha256(content) != entry["sha256"]:
        raise Damaged(f"checkpoint {path}: {name} does not have the sha256 its manifest says")
    return content


def _ordered(root: Path) -> list[Path]:
    """Every ``ckpt-*`` under ``root``, oldest first; one without a readable manifest counts as the oldest."""
    found = [(match, path) for path in root.glob("ckpt-*") if (match := _NAME.fullmatch(path.name))]
    return [p for _, p in sorted(found, key=lambda f: (_epoch(f[1]), int(f[0][1]), int(f[0][2] or 0)))]


def _epoch(path: Path) -> int:
    try:
        return int(_manifest(path)["learner_epoch"])
    except Damaged:
        return -1


def _read_json(path: Path) -> Any:
    """The content of a small JSON file of ours; None where there is none. Raises :class:`UsageError` if damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UsageError(f"{path} is damaged: restore it, or remove it to do without what it says") from error


# --- writing: one process at a time --------------------------------------------------------------------------------


class Checkpointer:
    """The one writer of ``root``: keeps the newest ``keep`` checkpoints and the best.

    Raises :class:`UsageError` when another process writes there. A process forked from the writer shares its lock; the
    roles are started afresh (exec), which does not.
    """

    def __init__(
        self, root: Path, keep: int = 3, *, metrics: Metrics | None = None, fs: durable.FileSystem = os
    ) -> None:
        assert keep >= 1
        self.root, self._keep, self._fs = root, keep, fs
        self._metrics = metrics or Metrics("learner")
        #: Failed saves since the last one that worked: the caller decides when it is enough.
        self.failures_in_a_row = 0
        root.mkdir(parents=True, exist_ok=True)
        self._lock = durable.lock(root / "lock")
        for stale in root.glob("tmp-*"):  # we hold the lock: whoever was writing these is dead
            durable.remove(stale, fs)

    def save(self, step: int, parts: Mapping[str, State], info: Mapping[str, Any]) -> Path:
        """Make a checkpoint durable; it is visible only when it is complete.

        Raises :class:`CheckpointFailed` when the system would not write it: the older ones are intact.
        """
        began = time.perf_counter()
        tmp = durable.temporary(self.root)
        try:
            self._write_directory(tmp, step, parts, info)
            path = self._free_name(step)
            self._fs.rename(str(tmp), str(path))
            durable.fsync_directory(self.root, self._fs)
        except OSError as error:
            self.failures_in_a_row += 1
            self._metrics.inc("checkpoint_failures_total")
            durable.remove(tmp, self._fs)
            raise CheckpointFailed(f"checkpoint {step} not written under {self.root}: {error.strerror}") from error
        self.failures_in_a_row = 0
        self._metrics.observe("checkpoint_seconds", time.perf_counter() - began)
        self._metrics.set("checkpoint_last_timestamp_seconds", time.time())
        self._remove_old(path)
        return path

    def latest(self, expect: Mapping[str, Any] | None = None) -> Checkpoint | None:
        """See :func:`latest`."""
        return latest(self.root, expect)

    def mark_best(self, path: Path, score: float) -> None:
        """Keep ``path`` until another one is marked."""
        self._replace("best.json", {"name": path.name, "score": score})

    def next_epoch(self) -> int:
        """Count one more start of a learner here, durably; the first is 1. No number is ever given twice."""
        counted = _read_json(self.root / "epoch.json") or {"learner_epoch": 0}
        epoch = 1 + max([int(counted["learner_epoch"]), *(_epoch(p) for p in _ordered(self.root))])
        self._replace("epoch.json", {"learner_epoch": epoch})
        return epoch

    def close(self) -> None:
        """Let another process write here. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- steps -----------------------------------------------------------------------------------------------------

    def _write_directory(self, tmp: Path, step: int, parts: Mapping[str, State], info: Mapping[str, Any]) -> None:
        self._fs.mkdir(str(tmp))
        files: dict[str, Any] = {}
        for name, content in _contents(parts, info):
            durable.write_file(tmp / name, content, self._fs)
            files[name] = {"bytes": len(content), "sha256": _sha256(content)}
        manifest = {
            "format": FORMAT,
            "step": step,
            "learner_epoch": int(info.get("learner_epoch", 0)),
            "parts": sorted(parts),
            "files": files,
        }
        signed = {**manifest, "sha256": _sha256(_json_bytes(manifest))}
        durable.write_file(tmp / "manifest.json", _json_bytes(signed), self._fs)
        durable.fsync_directory(tmp, self._fs)

    def _replace(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            durable.replace_file(self.root / name, _json_bytes(content), self._fs)
        except OSError as error:
            raise CheckpointFailed(f"{self.root / name} not written: {error.strerror}") from error

    def _free_name(self, step: int) -> Path:
        """``ckpt-<step>``; with a number behind it where a learner resumed and stopped without a new version."""
        path, n = self.root / f"ckpt-{step:012d}", 1
        while path.exists():
            path, n = self.root / f"ckpt-{step:012d}-{n}", n + 1
        return path

    def _remove_old(self, newest: Path) -> None:
        """Rename, fsync, then remove: a checkpoint is not half visible on its way out either."""
        marked = best(self.root)
        others = [p for p in _ordered(self.root) if p != newest]
        old = [p for p in others[: max(0, len(others) - (self._keep - 1))] if marked is None or p != marked[0]]
        leaving = [durable.temporary(self.root) for _ in old]
        try:
            for path, tmp in zip(old, leaving, strict=True):
                self._fs.rename(str(path), str(tmp))
            if old:
                durable.fsync_directory(self.root, self._fs)
        except OSError as error:
            _log.warning("old checkpoints under %s not removed: %s", self.root, error.strerror)
            return
        for tmp in leaving:
            durable.remove(tmp, self._fs)


def _contents(parts: Mapping[str, State], info: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file but the manifest, made one at a time: no second copy of all the tensors."""
    yield "info.json", _json_bytes(info)
    for name, state in parts.items():
        if not _PART.fullmatch(name) or name in ("info", "manifest"):
            raise ValueError(f"part {name!r}: use a name of a-z, 0-9 and _ other than info and manifest")
        tensors = {key: np.asarray(value, order="C") for key, value in state.tensors.items()}
        yield f"{name}.json", _json_bytes(state.values)
        yield f"{name}.safetensors", bytes(safetensors.numpy.save(tensors))


def _json_bytes(content: Any) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
