"""One network and one broker for all tests of this folder; a run for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .network import Missing, Network
from .run import HostBroker, HostRun, NewRun

_missing: list[str] = []


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """Where there can be none, the tests are skipped, and the last lines say so."""
    try:
        with Network("broker", "paramserver", "learner", "actor1", "actor2") as made:
            yield made
    except Missing as why:
        _missing.append(str(why))
        pytest.skip(f"no network namespaces: {why}")


@pytest.fixture(scope="session")
def broker(network: Network, kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> HostBroker:
    return HostBroker(network, tmp_path_factory.mktemp("hosts"))


@pytest.fixture
def new_run(broker: HostBroker, tmp_path: Path) -> Iterator[NewRun]:
    """new_run(client, *settings, tls=False): ended with its test. All hosts are there and well before."""
    broker.network.heal()
    broker.start()
    runs: list[HostRun] = []

    def make(client: str = "kafka-python", *settings: str, tls: bool = False) -> HostRun:
        runs.append(HostRun(tmp_path, broker, client, *settings, tls=tls))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing:
        terminalreporter.write_sep("!", "no network namespaces: several hosts were not tried", yellow=True)
        terminalreporter.write_line(_missing[0])
