"""The folder of runs that a board shows: which there are, and the only way from a word of the page to a file.

Names are paths within the folder, ``cartpole-ppo-1`` or ``cartpole-ppo-seeds-1/seed-0``. What lies elsewhere is not
there: no ``..``, no absolute path, and nothing that a symbolic link leads to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from headrace.common.errors import UsageError

#: What makes a directory one of a run.
_RUN = ("config.toml", "metrics.jsonl", "lock")
#: Runs of several seeds, or of a comparison, are kept one level further down.
_LEVELS = 2
#: Directories looked at, and runs shown, of a folder however full.
_MOST_LOOKED_AT, MOST_RUNS = 5_000, 200


class Folder:
    """The runs in ``root``, which need not be there yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> tuple[list[str], int]:
        """The newest runs, newest first, and how many more there are."""
        found: list[tuple[float, str]] = []
        for number, (name, path) in enumerate(_walk(self.root, "", _LEVELS)):
            if number >= _MOST_LOOKED_AT:
                break
            if (made_s := _made_s(path)) is not None:
                found.append((made_s, name))
        found.sort(reverse=True)
        return [name for _, name in found[:MOST_RUNS]], max(0, len(found) - MOST_RUNS)

    def run(self, name: str) -> Path:
        """The directory of a run. Raises :class:`UsageError` for one that is not in this folder."""
        path = self._inside(name)
        if path is None or _made_s(path) is None:
            raise UsageError(f"{name!r} is no run in {self.root}")
        return path

    def file(self, name: str, inner: str) -> Path:
        """A regular file of a run. Raises :class:`UsageError` for one that is not in its directory."""
        self.run(name)
        path = self._inside(f"{name}/{inner}")
        if path is None or not path.is_file():
            raise UsageError(f"{inner!r} is no file of the run {name!r}")
        return path

    def _inside(self, name: str) -> Path | None:
        """The path of that name, None where it leads anywhere else than its words say."""
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            return None
        real = os.path.realpath(self.root)
        path = os.path.join(real, *parts)
        return Path(path) if os.path.realpath(path) == path else None


def _walk(folder: Path, prefix: str, levels: int) -> Iterator[tuple[str, Path]]:
    """Directories by name; below those that hold no run themselves, theirs. Links are not followed."""
    try:
        with os.scandir(folder) as entries:
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."]
    except OSError:
        return
    for name in inner:
        path = folder / name
        yield f"{prefix}{name}", path
        if levels > 1 and _made_s(path) is None:
            yield from _walk(path, f"{prefix}{name}/", levels - 1)


def _made_s(path: Path) -> float | None:
    """When the run was begun; None for a directory that holds none."""
    for name in _RUN:
        try:
            return os.stat(path / name, follow_symlinks=False).st_mtime
        except OSError:
            continue
    return None
