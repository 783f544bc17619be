"""What a run directory says of the run: the settings in force, what follows from them, and what they were before.

    config.toml      every value in force, the algorithm's defaults included; readable by its owner only
    plan.json        what its numbers come to
    history.jsonl    what was changed since the start, oldest first: {"when", "key", "former", "new"}

`headrace train` writes them before it starts anything, a learner that runs alone once it is under way; both here.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.common import durable
from headrace.common.errors import UsageError
from headrace.launch.build import Blueprint, plan
from headrace.launch.config import Config
from headrace.launch.load import load

CONFIG, PLAN, HISTORY, ROWS, RESULT = "config.toml", "plan.json", "history.jsonl", "metrics.jsonl", "result.json"
_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class Change:
    """One setting, ``section.key``, as it was and as it is. None: it was not there."""

    key: str
    former: Any
    new: Any


def stored_config(run_dir: Path, overrides: Sequence[str] = ()) -> Config:
    """The settings of a run, with overrides on top. Raises :class:`UsageError` where there is no run."""
    if not os.path.isdir(run_dir):
        raise UsageError(f"{run_dir}: no such directory; runs are kept in runs/, or where --run-dir said")
    if not (run_dir / CONFIG).is_file():
        raise UsageError(f"{run_dir} is no run directory: it holds no {CONFIG}")
    config = load(str(run_dir / CONFIG), overrides)
    # Cut off at the end of a section it is still TOML, and defaults would step in unseen.
    there = tomllib.loads((run_dir / CONFIG).read_text(encoding="utf-8"))
    if lost := [f"[{section}]" for section in Config.model_fields if section not in there]:
        raise UsageError(f"{run_dir / CONFIG} is damaged: it holds no {', '.join(lost)}; restore it")
    return config


def holds_run(run_dir: Path) -> bool:
    """Has a learner left anything here that a fresh one would write over?"""
    return (run_dir / ROWS).exists() or any((run_dir / "checkpoints").glob("ckpt-*"))


def write(
    run_dir: Path, blueprint: Blueprint, changes: Sequence[Change] = (), networks: Mapping[str, Any] | None = None
) -> None:
    """Keep the settings in force and what they replace: the history first, for it is what could not be made again.
    ``networks``: their part of the plan (network_plan.py), where it is known.

    Raises :class:`UsageError` where they cannot be written; each file is the old or the new one then.
    """
    planned = json.dumps({**plan(blueprint), **(networks or {})}, indent=2) + "\n"
    try:
        if changes:
            _remember(run_dir / HISTORY, changes)
        for name, text in ((PLAN, planned), (CONFIG, blueprint.config.to_toml())):
            if not (run_dir / name).exists() or (run_dir / name).read_text(encoding="utf-8") != text:
                durable.replace_file(run_dir / name, text.encode(), mode=_OWNER_ONLY)
    except OSError as error:
        raise UsageError(f"{run_dir}: the settings cannot be kept there: {error.strerror}") from error


def _remember(path: Path, changes: Sequence[Change]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = "".join(json.dumps({"when": now, **asdict(change)}) + "\n" for change in changes)
    before = path.read_bytes() if path.exists() else b""
    durable.replace_file(path, before + lines.encode(), mode=_OWNER_ONLY)
