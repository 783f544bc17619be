"""Roles and what they may do, from the command line: tokens, certificates and ports that are not right are one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.common.metrics import Metrics
from headrace.common.weights.base import Progress
from headrace.launch import cli
from headrace.launch.load import load
from headrace.launch.run_paramserver import options
from headrace.paramserver.auth import Tokens
from headrace.paramserver.server import ParamServer
from tests.certificates import Authority

RUN = ["--config", "cartpole-ppo", "--set", "run.id=access"]


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """A role catches them; here it runs inside the tests' process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that ends with exit code 2."""
    assert cli.main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1, said.err
    return said.err


def settings(**weights: object) -> list[str]:
    return [word for key, value in weights.items() for word in ("--set", f"weights.{key}='{value}'")]


@pytest.mark.parametrize("role", ["paramserver", "evaluator", "actor", "learner"])
@pytest.mark.parametrize("address", ["localhost:99999", "localhost:-1", "localhost"])
def test_an_address_without_a_port_that_can_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, role: str, address: str
) -> None:
    said = refused(capsys, role, *RUN, "--run-dir", str(tmp_path / "run"), *settings(address=address))
    assert "weights.address" in said
    assert not (tmp_path / "run").exists()


def test_train_refuses_it_before_it_leaves_anything(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    refused(capsys, "train", "cartpole-ppo", "--run-dir", str(run_dir), *settings(address="localhost:99999"))
    assert not run_dir.exists()


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_metrics_port_that_cannot_be(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["paramserver", *RUN, f"--metrics-port={port}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"'{port}' is no port; use 1 to 65535" in said


@pytest.mark.parametrize("port", ["99999", "-1", "0"])
def test_a_brokers_port_that_cannot_be(capsys: pytest.CaptureFixture[str], port: str) -> None:
    url = f"transport.url='kafka://localhost:{port}/topic'"
    assert "is no host:port" in refused(capsys, "actor", *RUN, "--set", url)


def test_the_learner_and_the_actors_have_tokens_of_their_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "learner").write_text("learner-secret\n")
    (tmp_path / "actor").write_text("actor-secret\n")
    (tmp_path / "empty").write_text("\n")
    both = [f"weights.publish_token_file='{tmp_path}/learner'", f"weights.token_file='{tmp_path}/actor'"]
    made = options(load("cartpole-ppo", both)).tokens()
    assert made is not None
    assert made.now() == Tokens({"publish": ("learner-secret",), "subscribe": ("actor-secret",)})
    for address in ("0.0.0.0:0", "localhost:0"):
        at = settings(address=address)
        one = refused(capsys, "paramserver", *RUN, *at, *settings(token_file=tmp_path / "actor"))
        assert "weights.publish_token_file" in one
        same = settings(token_file=tmp_path / "actor", publish_token_file=tmp_path / "actor")
        assert "same token" in refused(capsys, "paramserver", *RUN, *at, *same)
    for wrong in ("empty", "none"):
        files = settings(token_file=tmp_path / wrong, publish_token_file=tmp_path / "learner")
        said = refused(capsys, "paramserver", *RUN, *files)
        assert f"weights.token_file {tmp_path}/{wrong}" in said


def test_the_ledger_is_what_the_config_says() -> None:
    overrides = ["weights.lease_max_s=2", "weights.lease_ttl_s=100", "algorithm.fragments=4", "learner.max_staleness=1"]
    made = options(load("cartpole-ppo", overrides)).ledger()
    made.admit(Progress(8, accepted=0), 0.0)
    assert made.begin(900, 1, 0.0, peer="there") is not None
    here = [made.begin(n, 1, 0.0, peer="here") for n in range(8)]
    assert [lease is not None for lease in here] == [True] * 4 + [False] * 4, "half of the eight that may be out"
    made.expire(1.9)
    assert made.begun == 5
    made.expire(2.0)
    assert made.begun == 0
    told = options(load("cartpole-ppo", [*overrides, "weights.leases_per_peer=3"]))
    assert (told.leases_per_peer, told.workers) == (3, 0)
    assert options(load("cartpole-ppo", [*overrides, "learner.max_staleness=0", "actors.processes=3"])).workers == 3


@pytest.mark.parametrize("role", ["actor", "evaluator", "learner"])
def test_a_role_can_be_given_a_certificate_and_without_it_says_so_and_ends(tmp_path: Path, role: str) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.certificate("server", "DNS:localhost")
    shown = authority.certificate("other")  # of no role: refused by name, so it has been shown
    server = ParamServer(
        "localhost:0",
        options(load("cartpole-ppo", [f"weights.{k}='{v}'" for k, v in
                                      (("tls_cert", cert), ("tls_key", key), ("tls_client_ca", authority.ca))])),
        Metrics("paramserver"),
    )  # fmt: skip
    server.start()
    common = [*RUN, "--run-dir", str(tmp_path / "run"), "--set", f"transport.url='local://{tmp_path}/t'"]
    at = settings(address=server.address, tls_ca=authority.ca)
    holder = None
    try:
        if role == "actor":  # its learner's end of the carrier
            holder = start("learner", *common, *settings(address="localhost:9"))
        for more, says in (([], "weights.tls_client_cert is not set"),
                           (settings(tls_client_cert=shown[0], tls_client_key=shown[1]), "names no role")):  # fmt: skip
            process = start(role, *common, *at, *more)
            _, said = process.communicate(timeout=30)
            assert process.returncode == 2, said
            assert says in said.splitlines()[-1]
            assert "Traceback" not in said
    finally:
        if holder is not None:
            holder.kill()
            holder.communicate()
        server.stop(0.0)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.launch.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_file_at_the_address_survives_a_server_that_wants_to_listen_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "results.csv").write_text("mine")
    said = refused(capsys, "paramserver", *RUN, *settings(address=f"unix:{tmp_path}/results.csv"))
    assert "no socket" in said
    assert (tmp_path / "results.csv").read_text() == "mine"
