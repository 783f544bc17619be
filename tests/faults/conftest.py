"""The runs of a test, closed at its end whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.run import Run


@pytest.fixture
def new_run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """new_run(algorithm, *settings, name="a"): a run in a folder of its own."""
    runs: list[Run] = []

    def make(algorithm: str, *settings: str, name: str = "a") -> Run:
        (tmp_path / name).mkdir()
        runs.append(Run(tmp_path / name, algorithm, *settings))
        return runs[-1]

    yield make
    for run in runs:
        run.close()
