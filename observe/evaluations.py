"""evaluations.jsonl: one JSON object a line, written by the evaluator after each evaluation of a version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """All of them, oldest first; none where there is no file. A broken line is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("mean"), int | float)]
