"""``headrace setup kubernetes`` against a server that keeps Secrets; a real one is asked by `make test-kubernetes`."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.common.errors import TransportError, UsageError
from headrace.launch.load import load
from headrace.launch.setup import kubernetes
from headrace.launch.setup.authority import Authority
from headrace.launch.setup.files import Names
from headrace.launch.setup.kubernetes import AFTER_KAFKA, BEFORE_KAFKA, Secrets
from tests.launch.runs import headrace

ROLES = (*BEFORE_KAFKA, *AFTER_KAFKA)
NAMES = Names(("paramserver",), ("kafka",))


class Server(ThreadingHTTPServer):
    """``held``: Secret -> its data; ``asked``: method and path of every request that had the token."""

    held: dict[str, dict[str, str]]
    asked: list[tuple[str, str]]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self._answer({})

    def do_PATCH(self) -> None:
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"])

    def _answer(self, more: dict[str, str]) -> None:
        server = cast(Server, self.server)
        *where, name = self.path.split("/")
        status = 200 if name in server.held else 404
        if self.headers["Authorization"] != "Bearer let-me-in":
            status = 401
        elif where == ["", "api", "v1", "namespaces", "headrace", "secrets"]:
            server.asked.append((self.command, name))
            server.held.get(name, {}).update(more)
        body = json.dumps({"data": server.held.get(name) or None}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """What a pod finds of its own account."""
    folder = tmp_path / "account"
    folder.mkdir()
    for name, text in (("namespace", "headrace"), ("token", "let-me-in\n")):
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def server(tmp_path: Path, account: Path) -> Iterator[Server]:
    authority = Authority.new("kubernetes")
    certificate, key = authority.certify("api", hosts=("127.0.0.1",))
    (account / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "api.pem").write_bytes(key + certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "api.pem")
    with Server(("127.0.0.1", 0), Handler) as made:
        made.held, made.asked = {f"{role}-secrets": {} for role in ROLES}, []
        made.socket = context.wrap_socket(made.socket, server_side=True)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def secrets(server: Server, account: Path) -> Secrets:
    return Secrets(f"https://127.0.0.1:{server.server_port}", account)


def prepare(folder: Path, held: Secrets) -> list[str]:
    folder.mkdir()
    return list(kubernetes.prepare(load("cartpole-ppo"), "", folder, NAMES, 1.0, held))


def test_secrets_are_made_once(tmp_path: Path, server: Server, account: Path) -> None:
    first = prepare(tmp_path / "first", secrets(server, account))
    assert first[0].endswith(": made")
    assert first[1:] == [
        "ca-secrets, kafka-secrets, paramserver-secrets, grafana-secrets: filled",
        "learner-secrets, actor-secrets, evaluator-secrets: filled",
    ]
    assert server.held["actor-secrets"].keys() == {
        "ca.crt", "client.crt", "client.key", "kafka.password", "subscribe.token",
    }  # fmt: skip
    assert server.held["paramserver-secrets"]["subscribe.token"] == server.held["actor-secrets"]["subscribe.token"]
    before: Any = json.loads(json.dumps(server.held))
    assert prepare(tmp_path / "second", secrets(server, account))[0] == "every secret is there already"
    assert server.held == before


def test_a_secret_that_was_emptied_is_filled_again(tmp_path: Path, server: Server, account: Path) -> None:
    prepare(tmp_path / "first", secrets(server, account))
    server.held["learner-secrets"].clear()
    said = prepare(tmp_path / "second", secrets(server, account))
    assert "learner/client.crt" in said[0]
    assert "kafka/keystore.pem" not in said[0]
    assert server.held["learner-secrets"]["publish.token"] == server.held["paramserver-secrets"]["publish.token"]


def test_a_secret_that_is_not_there_or_not_ours(tmp_path: Path, server: Server, account: Path) -> None:
    del server.held["actor-secrets"]
    with pytest.raises(
        UsageError, match="GET Secret headrace/actor-secrets: 404 Not Found; k8s/ has the empty Secrets"
    ):
        prepare(tmp_path / "first", secrets(server, account))
    assert not [asked for asked in server.asked if asked[0] == "PATCH"]
    (account / "token").write_text("another")
    with pytest.raises(UsageError, match="401 Unauthorized"):
        prepare(tmp_path / "second", secrets(server, account))


def test_an_api_that_is_another_or_away(server: Server, account: Path) -> None:
    asked = secrets(server, account)
    (account / "ca.crt").write_bytes(Authority.new("another").certificate)
    with pytest.raises(TransportError, match="certificate verify failed"):
        secrets(server, account).read("actor")
    server.server_close()
    with pytest.raises(TransportError, match=r"^Kubernetes at https://127\.0\.0\.1:\d+: "):
        asked.read("actor")


def test_outside_of_a_cluster_it_says_so() -> None:
    done = headrace("setup", "kubernetes", "--config", "cartpole-ppo")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"headrace setup: {kubernetes.ACCOUNT}: No such file or directory; `setup kubernetes` runs in a pod, as a Job"
    ]
