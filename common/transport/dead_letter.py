"""A folder for records that were refused, for a person to look into. Bounded: the first ones are kept (whoever refuses
them counts them all).

    dead_letter/crc-0.bin          the record as it came
    dead_letter/index.jsonl        {"file": "crc-0.bin", "reason": "crc", "detail": "...", "bytes": 1024, "unix_s": ...}
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

from headrace.common.codec import Buffer


class DeadLetters:
    """Keeps at most ``max_records`` records of ``max_bytes`` together. Raises OSError when the disk does."""

    def __init__(self, folder: Path, max_records: int = 1000, max_bytes: int = 256 << 20) -> None:
        self._folder = folder
        self._left_records = max_records
        self._left_bytes = max_bytes

    def keep(self, reason: str, detail: str, data: Buffer) -> None:
        """Keep a refused record while there is room."""
        if self._left_records < 1 or len(data) > self._left_bytes:
            return
        self._left_records -= 1
        self._left_bytes -= len(data)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = self._write(reason, data)
        line = {"file": name, "reason": reason, "detail": detail, "bytes": len(data), "unix_s": round(time.time(), 3)}
        with (self._folder / "index.jsonl").open("a") as index:
            index.write(json.dumps(line) + "\n")

    def _write(self, reason: str, data: Buffer) -> str:
        for n in itertools.count():
            name = f"{reason}-{n}.bin"
            try:  # "x": an earlier life of the learner may have left some here
                with (self._folder / name).open("xb") as file:
                    file.write(data)
            except FileExistsError:
                continue
            return name
        raise AssertionError("unreachable")
