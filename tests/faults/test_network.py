"""The network between actors and broker, and actors and parameter server: cut, a black hole, slow and far away."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headrace.common.errors import TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_sink
from headrace.common.transport.kafka_address import parse
from headrace.common.transport.kafka_topics import prepare
from tests.broker import OwnBroker
from tests.common.samples import trajectory
from tests.faults.proxy import Proxy
from tests.faults.run import Run, assert_nothing_twice_nothing_late
from tests.faults.test_kafka import Log
from tests.faults.variants import long
from tests.ports import free_ports

BOTH_CLIENTS = pytest.mark.parametrize("client", ["kafka-python", long("confluent")])


class Apart(OwnBroker):
    """A broker that is reached directly, at ``info.bootstrap``, and by a listener that says it is at the proxy."""

    def __init__(self, data_dir: Path) -> None:
        port, controller, behind = free_ports(3)
        self.proxy = Proxy(f"127.0.0.1:{behind}")
        settings = {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},FAR://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},FAR://{self.proxy.address}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,FAR:PLAINTEXT",
        }
        super().__init__(data_dir, settings, port)

    def url(self, where: str, topic: str, client: str) -> str:
        return f"kafka://{where}/{topic}?partitions=2&client={client}"


@pytest.fixture
def apart(tmp_path: Path, kafka_jars: None) -> Iterator[Apart]:
    broker = Apart(tmp_path / "broker")
    yield broker
    broker.kill()
    broker.proxy.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("fault", "for_s", "client"),
    [
        ("black_hole", 5.0, "kafka-python"),
        long("cut", 8.0, "confluent"),
        *(
            long(fault, 60.0, client)
            for fault in ("black_hole", "half_open")
            for client in ("kafka-python", "confluent")
        ),
    ],
)
def test_actors_cut_off_from_their_broker_go_on_when_it_is_over(
    new_run: Callable[..., Run], apart: Apart, fault: str, for_s: float, client: str
) -> None:
    """The learner is on the broker's side of it. Nothing that was acknowledged is lost, and nobody dies."""
    topic = f"faults-{uuid.uuid4().hex[:12]}"
    run = new_run("ppo", f"transport.url='{apart.url(apart.info.bootstrap, topic, client)}'")
    run.role("paramserver")
    learner = run.role("learner", "--episodes", "0")
    far = f"transport.url='{apart.url(apart.proxy.address, topic, client)}'"
    actors = [run.role("actor", "--index", str(index), "--set", far) for index in range(2)]
    run.wait_for_version(10)
    getattr(apart.proxy, fault)()
    time.sleep(for_s)
    stood = run.version
    apart.proxy.heal()
    run.wait_for_version(stood + 20)
    assert [actor.poll() for actor in actors] == [None, None], "an actor died of it"
    for process in (*actors, learner):
        process.terminate()
        assert run.end(process)[0] == 0
    assert_nothing_twice_nothing_late(run)
    Log(run).assert_applied_once_without_a_gap()


@BOTH_CLIENTS
def test_a_call_into_a_black_hole_returns_when_it_was_told_to(apart: Apart, client: str) -> None:
    topic, limits = f"faults-{uuid.uuid4().hex[:12]}", Limits(record_bytes=1 << 16, queue_bytes=1 << 16)
    url = apart.url(apart.info.bootstrap, topic, client)
    prepare(parse(url), limits, create=True)
    sink = open_sink(apart.url(apart.proxy.address, topic, client), limits=limits, metrics=Metrics("actor"), key="0")
    sink.put(trajectory(0, T=500), timeout_s=10)
    sink.flush(timeout_s=10)
    apart.proxy.black_hole()
    sink.put(trajectory(1, T=500), timeout_s=2.0)  # there is room for one
    for timeout_s, says, call in (
        (2.0, "no room", lambda: sink.put(trajectory(2, T=500), timeout_s=2.0)),
        (1.0, "not acknowledged within", lambda: sink.flush(timeout_s=1.0)),
        (2.0, "", lambda: sink.close(timeout_s=2.0)),
    ):
        began = time.monotonic()
        with pytest.raises(TransportError, match=says) if says else contextlib.nullcontext():
            call()
        assert time.monotonic() - began < timeout_s + 1.0, "it hangs"


@pytest.mark.faults_full
@pytest.mark.timeout(180)
def test_weights_over_a_slow_and_long_line_skip_versions_and_queue_nowhere(new_run: Callable[..., Run]) -> None:
    """1 Mbit/s and 300 ms between one actor and its parameter server; the other actor is near."""
    (port,) = free_ports(1)
    server = f"weights.address=127.0.0.1:{port}"
    run = new_run("ppo", server, "algorithm.hidden=[128,128]", "learner.max_staleness=30")
    paramserver = run.role("paramserver")
    learner = run.role("learner", "--episodes", "0")
    proxy = Proxy(f"127.0.0.1:{port}")
    proxy.latency_s, proxy.bytes_per_s = 0.3, 125_000
    try:
        run.role("actor", "--index", "0")
        run.role("actor", "--index", "1", "--set", f"weights.address={proxy.address}")
        run.wait_until(lambda: run.metrics("actor", 1).get(("actor_fragments_total",), 0) >= 2, "the far one works")
        held = psutil.Process(paramserver.pid).memory_info().rss
        skipped = run.metrics("paramserver")[("weights_skipped_versions_total",)]
        came = run.metrics("actor", 1)[("actor_fragments_total",)]
        run.wait_until(lambda: run.metrics("actor", 1).get(("actor_fragments_total",), 0) >= came + 5, "it goes on")
        assert run.metrics("paramserver")[("weights_skipped_versions_total",)] > skipped + 5
        assert psutil.Process(paramserver.pid).memory_info().rss < 1.1 * held, "the server's memory is flat"
        learner.terminate()
        assert run.end(learner)[0] == 0
        assert_nothing_twice_nothing_late(run, max_staleness=30)
    finally:
        proxy.close()
