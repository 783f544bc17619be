"""The writer of checkpoints: one process at a time. What it writes, and how it is read: checkpoint_reader.py."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy

from headrace.algorithms.base import Block, State
from headrace.common import durable
from headrace.common.errors import CheckpointFailed
from headrace.common.metrics import Metrics
from headrace.common.types import Array
from headrace.learner.checkpoint_reader import (
    FORMAT,
    Checkpoint,
    epoch_of,
    json_bytes,
    latest,
    manifest_of,
    ordered,
    read_json,
    sha256,
)

_PART = re.compile(r"[a-z][a-z0-9_]*")
_BLOCK = re.compile(r"[a-z][a-z0-9_.]*")
_log = logging.getLogger("headrace.checkpoint")


class CheckpointWriter:
    """The one writer of ``root``: keeps the newest ``keep`` checkpoints.

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
        #: sha256 -> file and size, of all that is in the newest checkpoint known: blocks found here are linked.
        self._there: dict[str, tuple[Path, int]] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._lock = durable.lock(root / "lock")
        for stale in root.glob("tmp-*"):  # we hold the lock: whoever was writing these is dead
            durable.remove(stale, fs)

    def save(self, step: int, parts: Mapping[str, State], info: Mapping[str, Any]) -> Path:
        """Make a checkpoint durable; it is visible only when it is complete. A block that is in the one before costs a
        hard link.

        Raises :class:`CheckpointFailed` when the system would not write it: the older ones are intact.
        """
        began = time.perf_counter()
        tmp = durable.temporary(self.root)
        try:
            files = self._write_directory(tmp, step, parts, info)
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
        self._remember(path, files)
        for file, block in _blocks(parts):
            block.sha256 = files[file]["sha256"]
        self._remove_old(path)
        return path

    def latest(self, expect: Mapping[str, Any] | None = None) -> Checkpoint | None:
        """See :func:`latest`."""
        found = latest(self.root, expect)
        if found is not None:
            self._remember(found.path, manifest_of(found.path)["files"])
        return found

    def next_epoch(self) -> int:
        """Count one more start of a learner here, durably; the first is 1. No number is ever given twice."""
        counted = read_json(self.root / "epoch.json", learner_epoch=int) or {"learner_epoch": 0}
        epoch = 1 + max([int(counted["learner_epoch"]), *(epoch_of(p) for p in ordered(self.root))])
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

    def _write_directory(
        self, tmp: Path, step: int, parts: Mapping[str, State], info: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns what the manifest says of the files."""
        self._fs.mkdir(str(tmp))
        files: dict[str, Any] = {}
        for name, content in _contents(parts, info):
            files[name] = self._write(tmp / name, content)
        for name, block in _blocks(parts):
            linked = self._link(tmp / name, block.sha256)
            files[name] = linked or self._write(tmp / name, _safetensors(block.read()))
        manifest = {
            "format": FORMAT,
            "step": step,
            "learner_epoch": int(info.get("learner_epoch", 0)),
            "parts": sorted(parts),
            "files": files,
        }
        signed = {**manifest, "sha256": sha256(json_bytes(manifest))}
        durable.write_file(tmp / "manifest.json", json_bytes(signed), self._fs)
        durable.fsync_directory(tmp, self._fs)
        return files

    def _write(self, path: Path, content: bytes) -> dict[str, Any]:
        durable.write_file(path, content, self._fs)
        return {"bytes": len(content), "sha256": sha256(content)}

    def _link(self, path: Path, digest: str) -> dict[str, Any] | None:
        """Give the newest checkpoint's file a second name. None where there is none, or it is not as it was written, or
        the file system knows no links."""
        if digest not in self._there:
            return None
        there, size = self._there[digest]
        try:
            if there.stat().st_size != size:
                return None
            self._fs.link(str(there), str(path))
        except OSError:
            return None
        return {"bytes": size, "sha256": digest}

    def _remember(self, path: Path, files: Mapping[str, Any]) -> None:
        self._there = {entry["sha256"]: (path / name, entry["bytes"]) for name, entry in files.items()}

    def _replace(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            durable.replace_file(self.root / name, json_bytes(content), self._fs)
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
        others = [p for p in ordered(self.root) if p != newest]
        old = others[: max(0, len(others) - (self._keep - 1))]
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
    """Name and content of every file but blocks and manifest, one at a time: no second copy of all the tensors."""
    yield "info.json", json_bytes(info)
    for name, state in parts.items():
        if not _PART.fullmatch(name) or name in ("info", "manifest"):
            raise ValueError(f"part {name!r}: use a name of a-z, 0-9 and _ other than info and manifest")
        yield f"{name}.json", json_bytes(state.values)
        yield f"{name}.safetensors", _safetensors(state.tensors)


def _blocks(parts: Mapping[str, State]) -> Iterator[tuple[str, Block]]:
    """File name and block, of every part."""
    for part, state in parts.items():
        for name, block in state.blocks.items():
            if not _BLOCK.fullmatch(name):
                raise ValueError(f"block {name!r}: use a name of a-z, 0-9, _ and .")
            yield f"{part}.{name}.safetensors", block


def _safetensors(tensors: Mapping[str, Array]) -> bytes:
    return bytes(safetensors.numpy.save({key: np.asarray(value, order="C") for key, value in tensors.items()}))
