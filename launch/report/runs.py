"""Which runs a report is about: run directories, or folders of seeds; and that they are seeds of one config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.launch.config import Config
from headrace.launch.run_files import CONFIG, stored_config

_SEED = re.compile(r"seed-(\d+)")
#: What is another one in each run of one config.
_OWN = ("run.id", "run.seed", "run.init_from", "transport.url", "weights.address")


def found(paths: Sequence[Path]) -> list[tuple[Path, Config]]:
    """The run directories that were named, each with its config; of a folder of seeds those in it. Raises
    :class:`UsageError` where there is none, where one is named twice, and where they are not of one config."""
    run_dirs = [run_dir for path in paths for run_dir in _in(path)]
    if twice := next((path for i, path in enumerate(run_dirs) if path in run_dirs[:i]), None):
        raise UsageError(f"report: {twice} is named twice")
    runs = [(run_dir, stored_config(run_dir)) for run_dir in run_dirs]
    first = settings(runs[0][1])
    for run_dir, config in runs[1:]:
        other = settings(config)
        if differs := [key for key in sorted({*first, *other}) if first.get(key) != other.get(key)]:
            raise UsageError(
                f"report: {run_dirs[0]} and {run_dir} are not seeds of one config: {differs[0]} is "
                f"{first.get(differs[0])!r} in the one and {other.get(differs[0])!r} in the other"
            )
    return runs


def settings(config: Config) -> dict[str, Any]:
    """section.key: value, without what tells one run of a config from another."""
    flat: dict[str, Any] = {}

    def add(table: Mapping[str, Any], section: str) -> None:
        for key, value in table.items():
            if isinstance(value, Mapping):
                add(value, f"{section}{key}.")
            elif value is not None:
                flat[f"{section}{key}"] = value

    add(config.model_dump(mode="json"), "")
    return {key: value for key, value in flat.items() if key not in _OWN}


def _in(path: Path) -> list[Path]:
    """A run directory itself, or the runs in a folder of seeds, by seed."""
    if (path / CONFIG).is_file() or not path.is_dir():
        return [path]
    matches = [(int(match[1]), entry) for entry in path.iterdir() if (match := _SEED.fullmatch(entry.name))]
    return [entry for _, entry in sorted(matches)] or [path]
