"""docs/reference.md has a row for every command and for every field of metrics.jsonl."""

from __future__ import annotations

import re
from typing import get_type_hints

import pytest

from headrace.launch.cli import COMMANDS
from headrace.observe.rows import Row
from tests.pages import ROOT

PAGE = (ROOT / "docs" / "reference.md").read_text()
#: The first cells of its tables' rows.
CELLS = " ".join(re.findall(r"^\| (`[^|]*) \|", PAGE, re.M))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_row(command: str) -> None:
    assert re.search(rf"`(?:headrace )?{command}\b", CELLS)


@pytest.mark.parametrize("field", get_type_hints(Row))
def test_every_field_of_a_row_has_a_line(field: str) -> None:
    assert f"`{field}`" in CELLS
