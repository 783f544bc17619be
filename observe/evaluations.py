"""evaluations.jsonl: what the evaluator found, one JSON object a line, in the order in which it was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """Every whole line that is an object with a number under ``mean``; none where there is no file. Other fields may be
    null or missing: not known."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        try:
            row: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("mean")) in (int, float):
            found.append(row)
    return found
