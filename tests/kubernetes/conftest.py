"""The node of the tests, and what a plain cluster has beside Kubernetes itself: volumes for the claims."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.engine import Missing

from . import node as nodes
from .node import Node

_missing: list[str] = []


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Where none can be had the tests are skipped, and the last lines say so."""
    folder = tmp_path_factory.mktemp("node")
    try:
        with nodes.serve(folder) as found:
            yield found
    except Missing as why:
        _missing.append(str(why))
        pytest.skip(f"no Kubernetes node: {why}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing:
        terminalreporter.write_sep("!", "no Kubernetes node: k8s/ was not tried", yellow=True)
        terminalreporter.write_line(_missing[0])
