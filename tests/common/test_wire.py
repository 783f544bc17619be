"""The generated code is what proto/generate.py makes of proto/*.proto today."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_code_is_current(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "proto" / "generate.py"), "--out", str(tmp_path)]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    committed = {p.name for p in (ROOT / "common" / "wire").iterdir()} - {"__init__.py", "__pycache__"}
    assert committed == set(made), "run `python proto/generate.py`"
    for name in made:
        fresh, kept = (tmp_path / name).read_bytes(), (ROOT / "common" / "wire" / name).read_bytes()
        assert fresh == kept, f"common/wire/{name} is stale: run `python proto/generate.py`"


def test_every_field_of_every_message_is_commented() -> None:
    for path in (ROOT / "proto").glob("*.proto"):
        lines = path.read_text().splitlines()
        for above, line in itertools.pairwise(lines):
            code, _, comment = line.partition("//")
            if "=" in code and not code.lstrip().startswith(("syntax", "option", "DTYPE_")):
                assert comment or above.lstrip().startswith("//"), f"{path.name}: {line.strip()} has no comment"
