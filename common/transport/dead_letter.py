"""A folder for records that were refused, for a person to look into. Bounded: the first ones are kept (whoever refuses
them counts them all), and of a large one its beginning.

    dead_letter/crc-0.bin          the record as it came
    dead_letter/index.jsonl        {"file": "crc-0.bin", "reason": "crc", "detail": "...", "bytes": 1024, "unix_s": ...}
                                   and "kept_bytes" where that is less than "bytes"
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from headrace.common.codec import Buffer
from headrace.common.metrics import Metrics

logger = logging.getLogger(__name__)

DETAIL_CHARS = 500
#: A letter takes this part of the room left at most, so that none is the last; it always has so many bytes.
_SHARE = 8
_LEAST_BYTES = 4096


class DeadLetters:
    """Keeps at most ``max_records`` records of ``max_bytes`` together. A letter that cannot be written is counted and
    logged: it must not stop the learner."""

    def __init__(self, folder: Path, metrics: Metrics, max_records: int = 1000, max_bytes: int = 256 << 20) -> None:
        self._folder, self._metrics = folder, metrics
        self._left_records = max_records
        self._left_bytes = max_bytes
        self._next: dict[str, int] = {}  # reason -> the first number that may be free
        self._lock = Lock()
        self._said = False

    def keep(self, reason: str, detail: str, data: Buffer, record_bytes: int = 0) -> None:
        """Keep a refused record while there is room. ``record_bytes``: how long it was, where ``data`` is a part."""
        with self._lock:
            if self._left_records < 1:
                return
            kept = data[: max(_LEAST_BYTES, self._left_bytes // _SHARE)]
            try:
                self._write(reason, detail, kept, max(record_bytes, len(data)))
            except OSError as error:
                self._metrics.inc("transport_errors_total", kind="dead_letter")
                if not self._said:
                    logger.error("%s: a refused record was not kept: %s (said once)", self._folder, error)
                self._said = True
                return
            self._left_records -= 1
            self._left_bytes = max(0, self._left_bytes - len(kept))

    def _write(self, reason: str, detail: str, kept: Buffer, nbytes: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path, file = self._new_file(reason)
        line = {"file": path.name, "reason": reason, "detail": detail[:DETAIL_CHARS], "bytes": nbytes}
        line |= {"kept_bytes": len(kept)} if len(kept) < nbytes else {}
        text = json.dumps(line | {"unix_s": round(time.time(), 3)}) + "\n"
        try:
            with file:
                file.write(kept)
            with (self._folder / "index.jsonl").open("ab", buffering=0) as index:
                at = index.tell()
                if index.write(text.encode()) < len(text):  # the disk is full: the next line must not be glued to it
                    index.truncate(at)
                    raise OSError("the line did not fit on the disk")
        except OSError:
            path.unlink()
            raise

    def _new_file(self, reason: str) -> tuple[Path, BinaryIO]:
        while True:
            number = self._next.get(reason, 0)
            path = self._folder / f"{reason}-{number}.bin"
            try:
                file = path.open("xb")
            except FileExistsError:  # an earlier life of the learner may have left some here
                self._next[reason] = number + 1
            else:
                return path, file
