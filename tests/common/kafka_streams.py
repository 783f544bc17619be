"""Topics of their own, brokers of their own, and helpers for the tests of kafka://."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, Received, Sink, Source, open_sink, open_source

from ..broker import OwnBroker
from ..certificates import self_signed
from .samples import trajectory

LIMITS = Limits(record_bytes=256 << 10, queue_bytes=512 << 10)
DEADLINE_S = 60.0
USER, PASSWORD = "actor", "correct horse"


class Stream:
    """One topic of its own, and what the test opened on it."""

    def __init__(self, server: str, partitions: int = 1, options: str = "", client: str = "kafka-python") -> None:
        self.server, self.topic = server, f"test-{uuid.uuid4().hex[:12]}"
        self.url = f"kafka://{server}/{self.topic}?partitions={partitions}&client={client}{options}"
        self.metrics = Metrics("learner")
        self.sink_metrics = Metrics("actor")
        self._opened: list[Source | Sink] = []

    def source(self, rank: int = 0, world: int = 1, limits: Limits = LIMITS, run_id: str = "") -> Source:
        given = {"dead_letter": Path("unused"), "group": "test", "run_id": run_id, "rank": rank, "world": world}
        made = open_source(self.url, limits=limits, metrics=self.metrics, **given)  # type: ignore[arg-type]
        self._opened.append(made)
        return made

    def sink(self, key: str = "0", limits: Limits = LIMITS) -> Sink:
        made = open_sink(self.url, limits=limits, metrics=self.sink_metrics, key=key)
        self._opened.append(made)
        return made

    def close(self) -> None:
        for thing in self._opened:
            thing.close(timeout_s=1.0)


def put(sink: Sink, *seqs: int, **stamps: Any) -> None:
    for seq in seqs:
        sink.put(trajectory(seq, **stamps), timeout_s=10)
    sink.flush(timeout_s=30)


def receive(source: Source, count: int) -> list[Received]:
    """The next ``count`` records; fails when they do not come in time."""
    end = time.monotonic() + DEADLINE_S
    got: list[Received] = []
    while len(got) < count:
        assert time.monotonic() < end, f"{len(got)} of {count} records came"
        if (received := source.get(timeout_s=0.2)) is not None:
            got.append(received)
    return got


def seqs(got: list[Received]) -> list[int]:
    return [received.trajectory.seq for received in got]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


#: Who logs in may do what its ACLs say; who is in clear is the administrator.
GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "allow.everyone.if.no.acl.found": "false",
}


class Served(OwnBroker):
    """In clear (``bootstrap``), with a login in clear (``login``, PLAIN), with one over TLS (``secure``, SCRAM).
    ``more``: settings of the broker."""

    def __init__(
        self, data_dir: Path, port: int, controller_port: int, login_port: int, secure_port: int, **more: str
    ) -> None:
        self.login, self.secure = f"127.0.0.1:{login_port}", f"127.0.0.1:{secure_port}"
        listeners = f"PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://{self.login},SASL_SSL://{self.secure}"
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        self.cert, key = self_signed(data_dir.parent / "tls")
        keystore = self.cert.with_name("keystore.pem")
        keystore.write_text(key.read_text() + self.cert.read_text())
        kinds = ("CONTROLLER:PLAINTEXT", *(f"{kind}:{kind}" for kind in ("PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL")))
        settings = {
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": ",".join(kinds),
            "listener.name.sasl_plaintext.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{plain} user_{USER}="{PASSWORD}";',
            "listener.name.sasl_ssl.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.sasl_ssl.ssl.keystore.type": "PEM",
            "listener.name.sasl_ssl.ssl.keystore.location": str(keystore),
            "socket.request.max.bytes": str(1 << 20),
            **more,
        }
        super().__init__(data_dir, settings, port)

    @property
    def bootstrap(self) -> str:
        return self.info.bootstrap
