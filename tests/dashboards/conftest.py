"""One running system for all tests here that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .live import Live, live


@pytest.fixture(scope="session")
def system(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """It has run for a while: every curve has something to show."""
    with live(tmp_path_factory.mktemp("live"), kafka_bootstrap) as made:
        made.wait_for("headrace:bottleneck:share1m")
        made.wait_for("headrace_evaluator_return")
        made.wait_for("headrace_transport_lag_records")
        made.wait_for("headrace_up_seconds > 30")
        yield made
