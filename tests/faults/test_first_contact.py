"""A broker that dies, or is cut off, during somebody's first contact is away; it is not one of other settings."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient

from headrace.common.errors import NoAnswer, UsageError
from headrace.common.transport import kafka_contact
from headrace.common.transport.kafka_address import parse


@contextlib.contextmanager
def listener(ends: int) -> Iterator[str]:
    """Ends so many connections after the first word, as a broker of another security does; then it says nothing."""
    server = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            for _ in range(ends):
                with server.accept()[0] as connection:
                    connection.recv(1 << 16)
            while True:
                kept.append(server.accept()[0])

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in (server, *kept):
        connection.close()


@pytest.mark.parametrize(
    ("ends", "raised", "says"),
    [(1, NoAnswer, "no broker answers within 2 s"), (1000, UsageError, "the broker ends the connection")],
)
def test_one_end_is_a_death_and_many_are_a_way_of_talking(
    monkeypatch: pytest.MonkeyPatch, ends: int, raised: type[Exception], says: str
) -> None:
    monkeypatch.setattr(kafka_contact, "CONNECT_TIMEOUT_S", 2.0)
    with listener(ends) as where, pytest.raises(raised, match=says) as caught:
        kafka_contact.connect(KafkaAdminClient, parse(f"kafka://{where}/topic"))
    assert type(caught.value) is raised


def test_who_has_answered_and_is_gone_is_away() -> None:
    address, gone = parse("kafka://127.0.0.1:1/topic"), kafka_contact.errors.KafkaConnectionError("socket disconnected")
    with pytest.raises(NoAnswer, match="no broker answers"), kafka_contact.translated(address, has_answered=True):
        raise gone
