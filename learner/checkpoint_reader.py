"""Checkpoints: directories that are either complete or not there, whatever kills the process and whenever.

    root/
      lock                    held (flock) by the one learner that may write here; holds its pid
      epoch.json              how often a learner was started here
      tmp-<uuid>/             being written, or being removed
      ckpt-<version>/         info.json · <part>.json + <part>.safetensors per part, <part>.<block>.safetensors per
                              block of its large arrays · manifest.json (sizes and sha256)

    mkdir tmp -> write, fsync each file; blocks that the checkpoint before holds are hard links -> manifest last
              -> fsync tmp -> rename to ckpt -> fsync root -> remove old ones

Nothing is read that the manifest does not vouch for, and nothing is ever unpickled. This file reads, and needs no lock
for it; checkpoint_writer.py writes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from headrace.algorithms.base import Block, State
from headrace.common.errors import UsageError
from headrace.common.types import Array

#: 2: leases that were spent take the place of de-duplication marks. 3: other names. 4: replay in blocks.
FORMAT = 4
_NAME = re.compile(r"ckpt-(\d{12})(?:-(\d+))?")
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


def load(path: Path, expect: Mapping[str, Any] | None = None, parts: Collection[str] | None = None) -> Checkpoint:
    """Read and verify the checkpoint in ``path``, all of it or some of its ``parts``. Blocks, which may be larger than
    the memory that is left, are read again (and verified again) when they are asked for.

    Raises :class:`UsageError` in one line when it is damaged, of an unknown format, or when ``info[key]`` differs from
    ``expect[key]`` for any key (``run_id`` of another run, ``network`` of another architecture).
    """
    manifest = manifest_of(path)
    if manifest["format"] != FORMAT:
        raise UsageError(f"checkpoint {path}: format {manifest['format']!r}, this version reads format {FORMAT}")
    files = manifest["files"]
    wanted = [name for name in manifest["parts"] if parts is None or name in parts]
    try:
        info = json.loads(_verified(path, "info.json", files["info.json"]))
        states = {name: _state(path, name, files) for name in wanted}
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise Damaged(f"checkpoint {path}: unreadable: {error}") from error
    for key, value in (expect or {}).items():
        wanted = json.loads(json.dumps(value))
        if info.get(key) != wanted:
            raise UsageError(f"checkpoint {path}: {key} is {info.get(key)!r}, but this run has {wanted!r}")
    return Checkpoint(path, manifest["step"], info, states)


def latest(
    root: Path, expect: Mapping[str, Any] | None = None, parts: Collection[str] | None = None
) -> Checkpoint | None:
    """The newest checkpoint under ``root`` that verifies; damaged ones are logged in a line each and passed over.

    Newest is by learner epoch, then step: after going back to an older one, what was abandoned stays abandoned. Raises
    :class:`UsageError` where ``expect`` is not met: that is another run's folder, not damage.
    """
    newest_first = reversed(ordered(root))
    for path in sorted(newest_first, key=lambda p: epoch_of(p) >= 0):  # those without a manifest first, to be reported
        try:
            return load(path, expect, parts)
        except Damaged as error:
            _log.warning("%s; trying the one before", error)
    return None


def _state(path: Path, part: str, files: Mapping[str, Any]) -> State:
    """One part, verified."""
    content = {name: _verified(path, name, files[name]) for name in (f"{part}.safetensors", f"{part}.json")}
    blocks = {}
    for name in files:
        if name.startswith(f"{part}.") and name.endswith(".safetensors") and name not in content:
            _verified(path, name, files[name])
            key = name.removeprefix(f"{part}.").removesuffix(".safetensors")
            blocks[key] = Block(partial(_tensors, path, name, files[name]), files[name]["sha256"])
    tensors = safetensors.numpy.load(content[f"{part}.safetensors"])
    return State(tensors, json.loads(content[f"{part}.json"]), blocks)


def _tensors(path: Path, name: str, entry: Mapping[str, Any]) -> dict[str, Array]:
    return dict(safetensors.numpy.load(_verified(path, name, entry)))


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest, once its own hash is right: what it says has the form that we write."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        signature = manifest.pop("sha256")
    except OSError as error:
        raise Damaged(f"checkpoint {path}: no readable manifest.json ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"checkpoint {path}: manifest.json is damaged") from error
    if sha256(json_bytes(manifest)) != signature:
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
    if sha256(content) != entry["sha256"]:
        raise Damaged(f"checkpoint {path}: {name} does not have the sha256 its manifest says")
    return content


def ordered(root: Path) -> list[Path]:
    """Every ``ckpt-*`` under ``root``, oldest first; one without a readable manifest counts as the oldest."""
    found = [(match, path) for path in root.glob("ckpt-*") if (match := _NAME.fullmatch(path.name))]
    return [p for _, p in sorted(found, key=lambda f: (epoch_of(f[1]), int(f[0][1]), int(f[0][2] or 0)))]


def epoch_of(path: Path) -> int:
    try:
        return int(manifest_of(path)["learner_epoch"])
    except Damaged:
        return -1


def read_json(path: Path, **kinds: Any) -> Any:
    """The object in a small JSON file of ours, whose values under the names in ``kinds`` are of those kinds; None where
    there is none. Raises :class:`UsageError` if damaged."""
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
            return content
    except FileNotFoundError:
        return None
    except ValueError:
        pass
    raise UsageError(f"{path} is damaged: restore it, or remove it to do without what it says")


def json_bytes(content: Any) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
