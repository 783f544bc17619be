"""Who may do what: tokens, TLS, and where a server dares to listen."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.paramserver.options import Options, is_local
from headrace.paramserver.server import ParamServer

from ..certificates import self_signed
from .servers import PLENTY, Rig, wait_for, weights

TOKENS = {"publish_token": "learner-secret", "subscribe_token": "actor-secret"}


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.7:7000", "headrace.example:7000"])
def test_an_open_door_to_the_network_is_refused_unless_told(address: str) -> None:
    with pytest.raises(UsageError, match="insecure"):
        ParamServer(address, Options(), Metrics("paramserver"))
    Options(insecure=True).check(address)
    Options(**TOKENS).check(address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.1.2.3:9", "localhost:7000", "[::1]:0", "unix:/tmp/w"])
def test_this_machine_needs_no_token(address: str) -> None:
    assert is_local(address)
    Options().check(address)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Options(tls_cert=Path("c.pem")), "tls_key"),
        (Options(tls_client_ca=Path("ca.pem")), "tls_client_ca"),
        (Options(publish_token="x"), "subscribe_token"),
    ],
)
def test_half_an_option_is_refused_by_name(options: Options, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        options.check("127.0.0.1:0")


def test_a_taken_address_is_one_clear_line(rig: Rig) -> None:
    server = rig.server()
    with pytest.raises(UsageError, match="cannot listen on"):
        rig.server(server.address)


def test_tokens_open_what_they_are_for(rig: Rig) -> None:
    server = rig.server(**TOKENS)
    rig.publisher(server.address, "learner-secret").publish(weights(0), PLENTY)
    wait_for(lambda: server.ready)
    assert rig.subscriber(server.address, token="actor-secret").next(-1, 10.0) is not None
    assert rig.follower(server.address, "learner-secret").newest(-1, 10.0) is not None
    with grpc.insecure_channel(server.address) as channel:  # probes carry no token
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


@pytest.mark.parametrize("token", ["", "actor-secre", "nonsense"])
def test_without_the_token_nobody_subscribes(rig: Rig, token: str) -> None:
    server = rig.server(**TOKENS)
    with pytest.raises(UsageError, match="token"):
        rig.subscriber(server.address, token=token).next(-1, 10.0)
    with pytest.raises(UsageError, match="token"):
        rig.follower(server.address, token).newest(-1, 10.0)


@pytest.mark.parametrize("token", ["", "actor-secret"])
def test_an_actors_token_does_not_publish(rig: Rig, token: str) -> None:
    server = rig.server(**TOKENS)
    publisher = rig.publisher(server.address, token)
    publisher.publish(weights(0), PLENTY)
    with pytest.raises(UsageError, match="token"):
        publisher.flush(10.0)
    assert not server.ready


def test_tls(rig: Rig, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    server = rig.server("localhost:0", tls_cert=cert, tls_key=key, **TOKENS)
    rig.publisher(server.address, "learner-secret", ca=cert).publish(weights(0), PLENTY)
    assert rig.subscriber(server.address, token="actor-secret", ca=cert).next(-1, 10.0) is not None
    assert rig.subscriber(server.address, 1, token="actor-secret").next(-1, 0.5) is None, "in clear it does not answer"
