"""The cluster of the tests: started once, used in the order of docs/cluster.md, taken down at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import engine, images
from .cluster import Cluster

_missing: list[str] = []


@pytest.fixture(scope="session")
def docker() -> Iterator[engine.Engine]:
    """An engine. Where none can be had the tests are skipped, and the last lines say so."""
    try:
        with engine.serve() as found:
            yield found
    except engine.Missing as why:
        _missing.append(str(why))
        pytest.skip(f"no Docker engine: {why}")


@pytest.fixture(scope="session")
def cluster(docker: engine.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A checkout with its images built; nothing is started yet."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), docker)
    if not images.provide(docker, made.folder):
        made.without_grafana()
    try:
        yield made
    finally:
        made.run("docker compose down --volumes --timeout 5 --remove-orphans")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing:
        terminalreporter.write_sep("!", "no Docker engine: the cluster was not tried", yellow=True)
        terminalreporter.write_line(_missing[0])
