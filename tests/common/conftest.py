"""Fixtures of the tests of kafka://."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ports import free_ports

from .kafka_streams import Served, Stream


@pytest.fixture(params=["kafka-python", "confluent"])
def client(request: pytest.FixtureRequest) -> str:
    """Both clients of kafka://, one after the other."""
    return str(request.param)


@pytest.fixture
def stream(real_kafka: str, client: str) -> Iterator[Stream]:
    made = Stream(real_kafka, client=client)
    yield made
    made.close()


@pytest.fixture(scope="module")
def own_broker(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A broker that tests may kill, with small requests only, and two more listeners that ask for a login."""
    made = Served(tmp_path_factory.mktemp("own") / "broker", *free_ports(4))
    yield made
    made.kill()
