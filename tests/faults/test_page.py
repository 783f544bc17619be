"""docs/faults.md names tests that exist, for every fault of the table, and `make test-faults` runs them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE, MAKEFILE = (ROOT / "docs" / "faults.md").read_text(), (ROOT / "Makefile").read_text()
FAULTS = 22
#: Run by a target of its own.
ELSEWHERE = ("tests/kubernetes/",)


def rows() -> dict[int, str]:
    return {int(number): line for line in PAGE.splitlines() for number in re.findall(r"^\| (\d+) \|", line)}


def test_every_fault_has_a_row_and_every_row_a_test() -> None:
    assert list(rows()) == list(range(1, FAULTS + 1))
    assert [number for number, line in rows().items() if "::test_" not in line] == []


def test_every_test_that_is_named_exists_and_is_run() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= FAULTS
    missing = [(file, test) for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert missing == []
    places = re.search(r"^FAULTS := ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert places is not None
    run = tuple(word for word in places[1].split() if word != "\\")
    assert [file for file, _ in named if not file.startswith((*run, *ELSEWHERE))] == []


def test_what_is_said_to_take_long_is_what_is_marked() -> None:
    for file, test, long in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`( \(long\))?", PAGE):
        before = (ROOT / file).read_text().partition(f"def {test}(")[0]
        assert ("@pytest.mark.faults_full" in before.rpartition("\n\n\n")[2]) == bool(long), test


def test_of_every_fault_something_is_in_make_test() -> None:
    """But for the soak."""
    all_long = [number for number, line in rows().items() if line.count("::test_") == line.count("` (long)")]
    assert all_long == [22]
