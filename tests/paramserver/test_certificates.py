"""Roles in certificates, made by openssl as SECURITY.md says: who may publish, and how a refusal is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.common.weights.tls import Tls
from headrace.paramserver.options import Options
from headrace.paramserver.server import ParamServer

from ..certificates import Authority
from .servers import PLENTY, Rig, token_files, wait_for, weights


class Site:
    """A server that asks for certificates, and one certificate a role."""

    def __init__(self, rig: Rig, folder: Path, **options: Path) -> None:
        self._authority = Authority(folder / "ours")
        cert, key = self._authority.certificate("server", "DNS:localhost")
        self.server = rig.server("localhost:0", tls_cert=cert, tls_key=key, tls_client_ca=self._authority.ca, **options)
        self.address = self.server.address
        self.ca = self._authority.ca

    def tls(self, name: str, *alternative_names: str) -> Tls:
        return Tls(self.ca, *self._authority.certificate(name, *alternative_names))

    @property
    def learner(self) -> Tls:
        return self.tls("learner", "URI:headrace:learner")

    @property
    def actor(self) -> Tls:
        return self.tls("actor", "URI:headrace:actor")


def test_a_learners_certificate_publishes_and_subscribes_an_actors_subscribes(rig: Rig, tmp_path: Path) -> None:
    site = Site(rig, tmp_path)
    rig.publisher(site.address, tls=site.learner).publish(weights(0), PLENTY)
    wait_for(lambda: site.server.ready)
    for tls in (site.learner, site.actor):
        assert rig.subscriber(site.address, tls=tls).next(-1, 10.0) is not None
        assert rig.follower(site.address, tls=tls).newest(-1, 10.0) is not None


def test_a_relays_certificate_relays_and_no_others_does(rig: Rig, tmp_path: Path) -> None:
    site = Site(rig, tmp_path)
    rig.publisher(site.address, tls=site.learner).publish(weights(0), PLENTY)
    relay = rig.relay(site.address, tls=site.tls("relay", "URI:headrace:relay"))
    assert rig.subscriber(relay.address).next(-1, 10.0) is not None
    for tls in (site.actor, site.learner):
        other = rig.relay(site.address, tls=tls)
        with pytest.raises(UsageError, match=f"relay: parameter server {site.address}: .*certificate names no role"):
            wait_for(lambda other=other: other.raise_if_failed())
    publisher = rig.publisher(site.address, tls=site.tls("relay2", "URI:headrace:relay"))
    publisher.publish(weights(1), PLENTY)
    with pytest.raises(UsageError, match="certificate names no role"):
        publisher.flush(10.0)


@pytest.mark.parametrize("names", [("URI:headrace:actor",), (), ("DNS:headrace",), ("URI:headrace:learners",)])
def test_another_certificate_does_not_publish(rig: Rig, tmp_path: Path, names: tuple[str, ...]) -> None:
    site = Site(rig, tmp_path)
    publisher = rig.publisher(site.address, tls=site.tls("other", *names))
    publisher.publish(weights(0), PLENTY)
    with pytest.raises(UsageError, match="certificate names no role"):
        publisher.flush(10.0)
    assert not site.server.ready


def test_a_certificate_without_a_role_does_not_subscribe(rig: Rig, tmp_path: Path) -> None:
    site = Site(rig, tmp_path)
    with pytest.raises(UsageError, match="certificate names no role"):
        rig.follower(site.address, tls=site.tls("other", "DNS:headrace")).newest(-1, 10.0)


def test_both_the_token_and_the_certificate_must_allow(rig: Rig, tmp_path: Path) -> None:
    site = Site(rig, tmp_path, **token_files(tmp_path))
    for token, tls, match in (
        ("learner-secret", site.actor, "certificate names no role"),
        ("actor-secret", site.learner, "token"),
    ):
        publisher = rig.publisher(site.address, token, tls=tls)
        publisher.publish(weights(0), PLENTY)
        with pytest.raises(UsageError, match=match):
            publisher.flush(10.0)
    rig.publisher(site.address, "learner-secret", tls=site.learner).publish(weights(0), PLENTY)
    wait_for(lambda: site.server.ready)


# --- what cannot work is said, in time -------------------------------------------------------------------------------


def wrong_ways(site: Site, folder: Path) -> dict[str, Tls | None]:
    """By what the line must say."""
    foreign = Authority(folder / "foreign")
    return {
        "weights.tls_client_cert is not set": Tls(site.ca),
        "refuses a certificate": Tls(site.ca, *foreign.certificate("actor", "URI:headrace:actor")),
        "is not trusted by weights.tls_ca": Tls(foreign.ca, site.actor.cert, site.actor.key),
        "it speaks TLS; set weights.tls_ca": None,
    }


def refused_within_10_s(call: Callable[[], object], says: str) -> None:
    def until_it_raises() -> None:
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            call()

    with pytest.raises(UsageError, match=says) as caught:
        until_it_raises()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("which", range(4))
def test_who_cannot_be_let_in_is_told_why_within_10_s(rig: Rig, tmp_path: Path, which: int) -> None:
    site = Site(rig, tmp_path)
    says, tls = list(wrong_ways(site, tmp_path).items())[which]
    refused_within_10_s(lambda: rig.subscriber(site.address, tls=tls).next(-1, 1.0), says)
    follower = rig.follower(site.address, tls=tls)
    refused_within_10_s(lambda: follower.newest(-1, 1.0), says)
    publisher = rig.publisher(site.address, tls=tls)
    publisher.publish(weights(0), PLENTY)
    refused_within_10_s(lambda: publisher.flush(10.0), says)


def test_tls_to_a_server_in_clear_is_told(rig: Rig, tmp_path: Path) -> None:
    server = rig.server()
    follower = rig.follower(server.address, tls=Tls(Authority(tmp_path).ca))
    refused_within_10_s(lambda: follower.newest(-1, 1.0), "does not speak TLS")


def test_a_server_that_is_away_is_waited_for(rig: Rig, tmp_path: Path) -> None:
    site = Site(rig, tmp_path)
    site.server.stop(0.0)
    assert rig.follower(site.address, tls=site.actor).newest(-1, 2.0) is None


@pytest.mark.parametrize("how", ["missing", "swapped", "another key", "a folder", "empty"])
def test_tls_files_that_cannot_be_right_are_one_line(tmp_path: Path, how: str) -> None:
    authority = Authority(tmp_path)
    (cert, key), (_, foreign) = authority.certificate("a", "DNS:localhost"), authority.certificate("b")
    (tmp_path / "empty").touch()
    cert, key = {
        "missing": (tmp_path / "none.pem", key),
        "swapped": (key, cert),
        "another key": (cert, foreign),
        "a folder": (tmp_path, key),
        "empty": (tmp_path / "empty", key),
    }[how]
    with pytest.raises(UsageError, match=r"weights\.tls_cert ") as caught:
        ParamServer("localhost:0", Options(tls_cert=cert, tls_key=key), Metrics("paramserver"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"weights\.tls_client_cert ") as caught:
        Tls(authority.ca, cert, key).check()
    assert "\n" not in str(caught.value)


def test_an_authority_that_is_none_is_one_line(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.certificate("a", "DNS:localhost")
    for wrong in (key, tmp_path / "none.pem"):
        with pytest.raises(UsageError, match=r"weights\.tls_client_ca "):
            Options(tls_cert=cert, tls_key=key, tls_client_ca=wrong).check("localhost:0")
        with pytest.raises(UsageError, match=r"weights\.tls_ca "):
            Tls(wrong).check()
