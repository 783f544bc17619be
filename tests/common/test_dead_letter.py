"""The folder of refused records: bounded, and no letter that cannot be kept costs more than itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.common.metrics import Metrics
from headrace.common.transport.dead_letter import DeadLetters


def index(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]


def test_the_first_ones_are_kept_in_every_life(tmp_path: Path) -> None:
    for _ in range(2):
        letters = DeadLetters(tmp_path, Metrics("test"), max_records=2)
        for _ in range(3):
            letters.keep("crc", "flipped", b"x" * 40)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["crc-0.bin", "crc-1.bin", "crc-2.bin", "crc-3.bin", "index.jsonl"]
    assert [line["bytes"] for line in index(tmp_path)] == [40] * 4


def test_a_record_larger_than_the_room_is_kept_cut_and_says_so_and_the_next_is_kept_whole(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, Metrics("test"), max_bytes=100_000)
    letters.keep("size", "far too large", b"y" * 1_000_000)
    letters.keep("crc", "flipped", b"x" * 40)
    large, small = index(tmp_path)
    assert large["bytes"] == 1_000_000
    assert 0 < large["kept_bytes"] == (tmp_path / large["file"]).stat().st_size < 100_000
    assert "kept_bytes" not in small
    assert (tmp_path / small["file"]).read_bytes() == b"x" * 40


def test_large_letters_leave_room_for_later_ones_within_the_bound(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, Metrics("test"), max_records=60, max_bytes=1 << 20)
    for _ in range(60):
        letters.keep("crc", "flipped", bytes(1 << 20))
    kept = [line["kept_bytes"] for line in index(tmp_path)]
    assert len(kept) == 60
    assert min(kept) == 4096
    assert sum(kept) <= (1 << 20) + 60 * 4096


def test_a_letter_that_cannot_be_written_costs_that_letter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics, folder = Metrics("test"), tmp_path / "dead"
    folder.write_text("no folder")
    letters = DeadLetters(folder, metrics)
    letters.keep("crc", "flipped", b"lost")
    letters.keep("crc", "flipped", b"lost too")
    assert metrics.value("transport_errors_total", kind="dead_letter") == 2
    assert [r.levelname for r in caplog.records] == ["ERROR"], "said once"
    folder.unlink()
    letters.keep("crc", "flipped", b"kept")
    assert [(folder / line["file"]).read_bytes() for line in index(folder)] == [b"kept"]
