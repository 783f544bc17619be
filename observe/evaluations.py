"""evaluations.jsonl: greedy evaluations of a run while it trains, one JSON object a line, written by its evaluator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Of a longer file the end is read: more evaluations than any picture shows.
_MAX_BYTES = 8 << 20


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """All whole lines that are objects, oldest first; none where there is no file. A field that is missing or null is
    not known."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - _MAX_BYTES))
            text = file.read(_MAX_BYTES)
    except OSError:
        return []
    found = []
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            found.append(said)
    return found
