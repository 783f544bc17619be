"""Authority, certificates, keys and tokens of a run of real roles are replaced while it trains, as SECURITY.md says:
the processes are the same ones, and versions keep coming."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority, replace
from tests.faults.run import Run
from tests.ports import free_port

ROLES = {
    "paramserver": ("server", "DNS:localhost"),
    "learner": ("client", "URI:headrace:learner"),
    "actor": ("client", "URI:headrace:actor"),
    "evaluator": ("client", "URI:headrace:actor"),
}


class Secrets:
    """One folder a role, with what that role is given and nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for role in ROLES:
            (root / role).mkdir(parents=True)

    def trust(self, *authorities: Authority) -> None:
        for role in ROLES:
            replace(self.root / role / "ca.crt", "".join(known.ca.read_text() for known in authorities))

    def certify(self, authority: Authority) -> None:
        for role, (name, alternative) in ROLES.items():
            cert, key = authority.certificate(role, alternative)
            replace(self.root / role / f"{name}.key", key)
            replace(self.root / role / f"{name}.crt", cert)

    def tokens(self, publish: str, subscribe: str, *roles: str) -> None:
        for role in roles:
            if role in ("paramserver", "learner"):
                replace(self.root / role / "publish.token", publish)
            if role != "learner":
                replace(self.root / role / "subscribe.token", subscribe)

    def settings(self, role: str) -> list[str]:
        folder, (name, _) = self.root / role, ROLES[role]
        files = {"tls_cert": "server.crt", "tls_key": "server.key", "tls_client_ca": "ca.crt"}
        if name == "client":
            files = {"tls_ca": "ca.crt", "tls_client_cert": "client.crt", "tls_client_key": "client.key"}
        if role in ("paramserver", "learner"):
            files["publish_token_file"] = "publish.token"
        if role != "learner":
            files["token_file"] = "subscribe.token"
        return [word for key, file in files.items() for word in ("--set", f"weights.{key}='{folder / file}'")]


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return Secrets(tmp_path / "secrets")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path, "ppo", f"weights.address='localhost:{free_port()}'")
    yield made
    made.close()


def goes_on(run: Run, started: dict[str, subprocess.Popen[str]]) -> None:
    """Ten more versions, and nobody has ended."""
    run.wait_for_version(run.version + 10)
    ended = {name: process.communicate()[1] for name, process in started.items() if process.poll() is not None}
    assert not ended


def test_everything_is_replaced_during_a_run(run: Run, secrets: Secrets, tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
    secrets.trust(old)
    secrets.certify(old)
    secrets.tokens("p-old", "s-old", *ROLES)
    start: Callable[[str], subprocess.Popen[str]] = lambda role: run.role(role, *secrets.settings(role))  # noqa: E731
    started = {role: start(role) for role in ROLES}
    goes_on(run, started)
    host, _, port = run.config.weights.address.rpartition(":")
    shown = ssl.get_server_certificate((host, int(port)))

    secrets.trust(old, new)  # 1: the new ones are known everywhere
    secrets.tokens("p-old\np-new", "s-old\ns-new", "paramserver")
    goes_on(run, started)
    secrets.certify(new)  # 2: they are used everywhere
    secrets.tokens("p-new", "s-new", "learner", "actor", "evaluator")
    goes_on(run, started)
    assert ssl.get_server_certificate((host, int(port))) != shown
    secrets.trust(new)  # 3: the old ones are nobody's any more
    secrets.tokens("p-new", "s-new", "paramserver")
    goes_on(run, started)

    started.pop("paramserver").kill()  # everybody has to come in anew
    started["paramserver"] = start("paramserver")
    goes_on(run, started)
    secrets.tokens("p-new", "s-old", "actor")
    late = start("actor")
    code, said = run.end(late)
    assert code == 2
    assert "the token is missing or does not allow this call" in said
    secrets.tokens("p-new", "s-new", "actor")
    goes_on(run, started)


def test_an_expired_certificate_ends_a_role_at_its_start_with_one_line(
    run: Run, secrets: Secrets, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    secrets.trust(authority)
    secrets.certify(authority)
    secrets.tokens("p", "s", *ROLES)
    for role, (name, alternative) in ROLES.items():
        cert, key = authority.certificate(role, alternative, days=-1)
        replace(secrets.root / role / f"{name}.key", key)
        replace(secrets.root / role / f"{name}.crt", cert)
    for role, setting in {"paramserver": "weights.tls_cert", "learner": "weights.tls_client_cert",
                          "evaluator": "weights.tls_client_cert"}.items():  # fmt: skip
        code, said = run.end(run.role(role, *secrets.settings(role)))
        assert code == 2, said
        assert said.count("\n") == 1, said
        assert f"{setting} {secrets.root / role}" in said
        assert "the certificate has expired" in said
