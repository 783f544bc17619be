"""Who may do what: tokens, TLS, and where a server dares to listen."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.common.errors import Closed, UsageError
from headrace.common.metrics import Metrics
from headrace.common.weights.client import SERVICE
from headrace.common.weights.grpc import GrpcFollower
from headrace.common.weights.tls import Tls
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver.options import Options, is_local
from headrace.paramserver.server import ParamServer

from ..certificates import self_signed
from .servers import PLENTY, RUN, Rig, token_files, wait_for, weights


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.7:7000", "headrace.example:7000"])
def test_an_open_door_to_the_network_is_refused_unless_told(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="insecure"):
        ParamServer(address, Options(), Metrics("paramserver"))
    Options(insecure=True).check(address)
    Options(**token_files(tmp_path)).check(address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.1.2.3:9", "localhost:7000", "[::1]:0", "unix:/tmp/w"])
def test_this_machine_needs_no_token(address: str) -> None:
    assert is_local(address)
    Options().check(address)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Options(tls_cert=Path("c.pem")), "tls_key"),
        (Options(tls_client_ca=Path("ca.pem")), "tls_client_ca"),
        (Options(publish_token_file=Path("x")), "weights.token_file"),
        (Options(token_file=Path("x")), "weights.publish_token_file"),
    ],
)
def test_half_an_option_is_refused_by_name(options: Options, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        options.check("127.0.0.1:0")


@pytest.mark.parametrize(("publish", "subscribe"), [("x", "x"), ("new\nx", "x\nold"), ("x", "old\nx")])
def test_one_token_for_both_is_refused(tmp_path: Path, publish: str, subscribe: str) -> None:
    with pytest.raises(
        UsageError, match=r"weights.publish_token_file .* hold the same token; each is to allow something else"
    ):
        Options(**token_files(tmp_path, publish, subscribe)).check("127.0.0.1:0")


def test_a_taken_address_is_one_clear_line(rig: Rig) -> None:
    server = rig.server()
    with pytest.raises(UsageError, match="cannot listen on"):
        rig.server(server.address)


def test_tokens_open_what_they_are_for(rig: Rig, tmp_path: Path) -> None:
    server = rig.server(**token_files(tmp_path))
    rig.publisher(server.address, "learner-secret").publish(weights(0), PLENTY)
    wait_for(lambda: server.ready)
    assert rig.subscriber(server.address, token="actor-secret").next(-1, 10.0) is not None
    assert rig.follower(server.address, "learner-secret").newest(-1, 10.0) is not None
    with grpc.insecure_channel(server.address) as channel:  # probes carry no token
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


@pytest.mark.parametrize("token", ["", "actor-secre", "nonsense"])
def test_without_the_token_nobody_subscribes(rig: Rig, tmp_path: Path, token: str) -> None:
    server = rig.server(**token_files(tmp_path))
    with pytest.raises(UsageError, match="token"):
        rig.subscriber(server.address, token=token).next(-1, 10.0)
    with pytest.raises(UsageError, match="token"):
        rig.follower(server.address, token).newest(-1, 10.0)


@pytest.mark.parametrize("token", ["", "actor-secret"])
def test_an_actors_token_does_not_publish(rig: Rig, tmp_path: Path, token: str) -> None:
    server = rig.server(**token_files(tmp_path))
    publisher = rig.publisher(server.address, token)
    publisher.publish(weights(0), PLENTY)
    with pytest.raises(UsageError, match="token"):
        publisher.flush(10.0)
    assert not server.ready


@pytest.mark.parametrize("token", ["", "actor-secret"])
def test_an_actors_token_does_not_move_the_counters(rig: Rig, tmp_path: Path, token: str) -> None:
    server = rig.server(**token_files(tmp_path))
    publisher = rig.publisher(server.address, "learner-secret")
    publisher.publish(weights(0), PLENTY)
    publisher.flush(10.0)
    request = pb.AdmitRequest(run_id=RUN, writer=1, learner_epoch=9).SerializeToString()
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{SERVICE}/Admit")(request, timeout=10, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_tls(rig: Rig, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    server = rig.server("localhost:0", tls_cert=cert, tls_key=key, **token_files(tmp_path))
    tls = Tls(cert)
    rig.publisher(server.address, "learner-secret", tls=tls).publish(weights(0), PLENTY)
    assert rig.subscriber(server.address, token="actor-secret", tls=tls).next(-1, 10.0) is not None


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["localhost:99999", "localhost:-1", "localhost", "", "unix:", "a b:1", "host:port"])
def test_an_address_that_is_none_is_one_line_on_both_sides(rig: Rig, address: str) -> None:
    for start in (rig.server, rig.publisher, rig.subscriber, rig.follower):
        with pytest.raises(UsageError, match=r"weights\.address .* use host:port|names no path") as caught:
            start(address)
        assert "\n" not in str(caught.value)


def test_a_file_at_the_address_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("mine")
    server = ParamServer(f"unix:{tmp_path}/results.csv", Options(), Metrics("paramserver"))
    with pytest.raises(UsageError, match="no socket"):
        server.start()
    assert (tmp_path / "results.csv").read_text() == "mine"


def test_a_live_socket_is_not_taken_over(rig: Rig, tmp_path: Path) -> None:
    first = rig.server(f"unix:{tmp_path}/w")
    with pytest.raises(UsageError, match="another process listens"):
        rig.server(f"unix:{tmp_path}/w")
    rig.publisher(first.address).publish(weights(0), PLENTY)
    assert rig.subscriber(f"unix:{tmp_path}/w").next(-1, 10.0) is not None


def test_a_dead_socket_is_replaced(rig: Rig, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/w")
    server = rig.server(f"unix:{tmp_path}/w")
    rig.publisher(server.address).publish(weights(0), PLENTY)
    assert rig.subscriber(server.address).next(-1, 10.0) is not None


# --- slots -----------------------------------------------------------------------------------------------------------


def wait_in_line(rig: Rig, address: str, count: int) -> None:
    """``count`` followers of a server without weights: each holds a slot until the end of the test."""
    for _ in range(count):
        threading.Thread(target=_hold, args=(rig.follower(address),), daemon=True).start()
    wait_for(lambda: rig.server_metrics.value("weights_subscribers") == count)


def _hold(follower: GrpcFollower) -> None:
    with contextlib.suppress(Closed):
        follower.newest(-1, 60.0)


def test_one_host_cannot_take_every_slot(rig: Rig) -> None:
    server = rig.server("localhost:0", max_subscribers=4, max_subscribers_per_host=2)
    port = server.address.rpartition(":")[2]
    with socket.create_connection(("localhost", int(port))) as link:
        one, other = ("127.0.0.1", "[::1]") if link.family == socket.AF_INET6 else ("127.0.0.1", "127.0.0.1")
    wait_in_line(rig, f"{one}:{port}", 2)
    request = pb.SubscribeRequest(run_id=RUN, have_epoch=-1, have_version=-1).SerializeToString()
    with grpc.insecure_channel(f"{one}:{port}") as channel:
        third = channel.unary_stream(f"/{SERVICE}/Subscribe")(request, timeout=10)
        with pytest.raises(grpc.RpcError, match=r"2 subscribers of 127\.0\.0\.1 are being served; try again"):
            next(iter(third))
    rig.publisher(f"{other}:{port}").publish(weights(0), PLENTY)


def test_there_are_so_many_slots_in_all(rig: Rig, tmp_path: Path) -> None:
    server = rig.server(f"unix:{tmp_path}/w", max_subscribers=2)
    wait_in_line(rig, server.address, 2)
    request = pb.SubscribeRequest(run_id=RUN, have_epoch=-1, have_version=-1).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        third = channel.unary_stream(f"/{SERVICE}/Subscribe")(request, timeout=10)
        with pytest.raises(grpc.RpcError, match="2 subscribers are being served; try again"):
            next(iter(third))
    rig.publisher(server.address).publish(weights(0), PLENTY)


def test_one_connection_cannot_take_every_slot(rig: Rig, tmp_path: Path) -> None:
    server = rig.server(f"unix:{tmp_path}/w", max_subscribers=20)
    request = pb.SubscribeRequest(run_id=RUN, have_epoch=-1, have_version=-1).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        greedy = [channel.unary_stream(f"/{SERVICE}/Subscribe")(request, timeout=60) for _ in range(40)]
        wait_for(lambda: rig.server_metrics.value("weights_subscribers") == 16)
        rig.publisher(server.address).publish(weights(0), PLENTY)
        assert rig.subscriber(server.address).next(-1, 10.0) is not None
        for call in greedy:
            call.cancel()
