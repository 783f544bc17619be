"""kafka:// and a client library that waits for ever though the broker answers: a new client takes its place."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.common.errors import LogLost, TransportError
from headrace.common.transport import kafka_client, kafka_patience, kafka_reader, kafka_source
from headrace.common.transport.kafka_patience import LOST_AFTER_S, STUCK_AFTER_S, Patience

from . import independent
from .kafka_streams import PASSWORD, USER, Served, Stream, put, receive, seqs, wait_for


class _Stuck:
    """A real client some methods of which cease to work, once it is told so."""

    def __init__(self, real: Any, methods: tuple[str, ...]) -> None:
        self._real, self.methods, self.stuck = real, methods, False

    def __getattr__(self, name: str) -> Any:
        if self.stuck and name in self.methods:
            return {"poll": lambda *_: [], "ends": _never}[name]
        return getattr(self._real, name)


def _never() -> None:
    kafka_client.within(0.2, threading.Event().wait, "where the log ends")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[_Stuck]:
    made: list[_Stuck] = []
    really = kafka_client.open_consumer

    def open_consumer(*what: Any) -> Any:
        made.append(_Stuck(really(*what), request.param))
        return made[-1]

    monkeypatch.setattr(kafka_client, "open_consumer", open_consumer)
    monkeypatch.setattr(kafka_patience, "STUCK_AFTER_S", 4.0)  # longer than a busy machine needs for a record
    return made


@pytest.mark.parametrize("opened", [("poll",), ("poll", "ends")], ids=["silent", "deaf as well"], indirect=True)
def test_a_client_that_reads_nothing_is_replaced_and_nothing_is_lost(
    kafka_bootstrap: str, client: str, opened: list[_Stuck], caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(kafka_bootstrap, client=client, partitions=2)
    source, sinks = stream.source(), [stream.sink("0"), stream.sink("1")]
    put(sinks[0], 0, 1)
    put(sinks[1], 2)
    early = receive(source, 3)
    opened[0].stuck = True
    time.sleep(2 * kafka_source.POLL_S)  # a poll that was under way is over
    put(sinks[0], 3, 4)
    put(sinks[1], 5)
    if "ends" in opened[0].methods:
        wait_for(lambda: source.backlog_age_s() > 2 * kafka_source.ENDS_EVERY_S)
    assert sorted(seqs(early + receive(source, 3))) == [0, 1, 2, 3, 4, 5]
    assert len(opened) == 2
    assert "goes on with a new client" in caplog.text
    assert stream.metrics.value("transport_errors_total", kind="stuck") == 1
    put(sinks[0], 6)
    assert seqs(receive(source, 1)) == [6]
    assert len(opened) == 2
    wait_for(lambda: source.backlog_age_s() < kafka_source.ENDS_EVERY_S)
    stream.close()


def test_a_handshake_that_is_never_answered_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, own_broker: Served, client: str
) -> None:
    """As when a machine dies with its addresses while somebody connects."""
    monkeypatch.setenv("KAFKA_SASL_USERNAME", USER)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    monkeypatch.setattr(kafka_patience, "STUCK_AFTER_S", 2.0)
    independent.allow_login(own_broker.bootstrap, USER, PASSWORD, "SCRAM-SHA-512")
    stream = Stream(
        own_broker.secure, options=f"&security=SASL_SSL&sasl=SCRAM-SHA-512&cafile={own_broker.cert}", client=client
    )
    plain = Stream(own_broker.bootstrap, options="&security=PLAINTEXT", client=client)
    plain.url = plain.url.replace(plain.topic, stream.topic)
    source, sink = stream.source(), plain.sink()
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]
    own_broker.kill()
    with _mute(own_broker.secure):
        own_broker.start()
        put(sink, 1, 2)
        assert seqs(receive(source, 2)) == [1, 2]
    stream.close()
    plain.close()


@contextlib.contextmanager
def _mute(address: str) -> Iterator[None]:
    """Takes a connection there, and never says a word on it; others find the address free."""
    host, port = address.split(":")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen()
        listener.settimeout(30)
        taken, _ = listener.accept()
    with taken:
        yield


def test_a_client_with_nothing_to_read_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, kafka_bootstrap: str, client: str
) -> None:
    monkeypatch.setattr(kafka_patience, "STUCK_AFTER_S", 0.5)
    monkeypatch.setattr(kafka_reader, "PAUSE_S", 0.01)
    stream = Stream(kafka_bootstrap, client=client)
    source, sink = stream.source(), stream.sink()
    put(sink, 0)
    assert seqs(receive(source, 1)) == [0]
    for _ in range(20):
        assert source.get(timeout_s=0.2) is None
    assert stream.metrics.value("transport_errors_total", kind="stuck") == 0
    stream.close()


def test_what_takes_too_long_is_left_behind_and_errors_fly() -> None:
    assert kafka_client.within(5, lambda: 3, "three") == 3
    with pytest.raises(ZeroDivisionError):
        kafka_client.within(5, lambda: 1 / 0, "nothing")
    with pytest.raises(kafka_client.Unreachable, match="no answer within 0 s to a question"):
        kafka_client.within(0.05, threading.Event().wait, "a question")


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_patience_has_an_end_for_each_thing_and_begins_anew() -> None:
    clock = _Clock()
    patience = Patience("kafka://here", 60.0, clock)
    gone = OSError("gone")
    patience.away(gone)
    clock.now_s = 59.0
    patience.away(gone)
    patience.client_answers()
    clock.now_s = 61.0
    patience.away(gone)
    clock.now_s = 122.0
    with pytest.raises(TransportError, match="kafka://here: no broker for 61 s: gone"):
        patience.away(gone)

    patience.lost("cut")
    clock.now_s += LOST_AFTER_S
    patience.lost("cut")
    patience.lost("")
    clock.now_s += LOST_AFTER_S
    patience.lost("cut")
    clock.now_s += LOST_AFTER_S + 0.1
    with pytest.raises(LogLost, match="kafka://here: cut"):
        patience.lost("cut")

    assert patience.stuck() is None
    clock.now_s += STUCK_AFTER_S
    assert patience.stuck() == STUCK_AFTER_S
    assert patience.stuck() is None
    clock.now_s += STUCK_AFTER_S
    assert patience.stuck() is None, "twice as long the second time"
    clock.now_s += STUCK_AFTER_S
    assert patience.stuck() == 2 * STUCK_AFTER_S
    patience.records_came()
    patience.stuck()
    patience.not_stuck()
    clock.now_s += STUCK_AFTER_S
    assert patience.stuck() is None
    clock.now_s += STUCK_AFTER_S
    assert patience.stuck() == STUCK_AFTER_S, "as at first, since records came"
