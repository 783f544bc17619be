"""Tokens and certificates that are replaced while everybody talks: real channels, real certificates; what goes wrong is
said and does no harm."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.common.errors import TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.waiting import Waiting
from headrace.common.weights.tls import Tls
from headrace.common.weights.tokens import shown
from headrace.paramserver.options import Options
from headrace.paramserver.server import ParamServer

from ..certificates import Authority, replace
from .servers import ACTORS, LEARNERS, PLENTY, Rig, collect, token_files, wait_for, weights

# --- tokens ----------------------------------------------------------------------------------------------------------


def test_an_old_and_a_new_token_hold_side_by_side_and_then_the_new_one_alone(rig: Rig, tmp_path: Path) -> None:
    """The three steps of SECURITY.md, with one file that server and actors share."""
    files = token_files(tmp_path)
    server = rig.server(**files)
    publisher = rig.publisher(server.address, shown(files["publish_token_file"], "x"))
    actor = rig.subscriber(server.address, token=shown(files["token_file"], "x"))
    for version, now in enumerate((ACTORS, f"{ACTORS}\nnew\n", f"new\n{ACTORS}\n", "new\n")):
        replace(files["token_file"], now)
        publisher.publish(weights(version), PLENTY)
        publisher.flush(10.0)
        lease = collect(actor, version - 1, 10.0)
        assert lease is not None
        assert lease.weights is not None
        assert lease.weights.version == version
        for token in now.split():
            assert rig.follower(server.address, token).newest(-1, 10.0) is not None
    with pytest.raises(UsageError, match=r"token .*weights\.token_file"):
        rig.follower(server.address, ACTORS).newest(-1, 10.0)
    late = rig.publisher(server.address, "new")
    late.publish(weights(9), PLENTY)
    with pytest.raises(UsageError, match=r"token .*weights\.publish_token_file"):
        late.flush(10.0)


@pytest.mark.parametrize("how", ["gone", "empty", "the learners' too"])
def test_a_token_file_that_will_not_do_leaves_the_tokens_as_they_were(
    rig: Rig, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    files = token_files(tmp_path)
    server = rig.server(**files)
    rig.publisher(server.address, LEARNERS).publish(weights(0), PLENTY)
    wait_for(lambda: server.ready)
    if how == "gone":
        files["token_file"].unlink()
    else:
        replace(files["token_file"], {"empty": "", "the learners' too": f"new\n{LEARNERS}\n"}[how])
    for _ in range(3):
        assert rig.follower(server.address, ACTORS).newest(-1, 10.0) is not None
    said = capfd.readouterr().err
    assert said.count("\n") == 1, said
    assert f"weights.token_file {files['token_file']}" in said
    assert "what was read before stays in use" in said


def test_who_was_let_in_before_says_that_its_token_is_refused_and_waits_for_the_new_one(
    rig: Rig, tmp_path: Path
) -> None:
    (tmp_path / "client").mkdir()
    served, mine = token_files(tmp_path), token_files(tmp_path / "client")
    server, said = rig.server(**served), list[str]()
    publisher = rig.publisher(server.address, shown(mine["publish_token_file"], "x"))
    publisher.publish(weights(0), PLENTY)
    away = Waiting("actor", 60.0, said.append)
    actor = rig.subscriber(server.address, token=shown(mine["token_file"], "x"), away=away)
    assert collect(actor, -1, 10.0) is not None
    token_files(tmp_path, "new-learner", "new-actor")  # not as SECURITY.md says: the old ones are gone at once
    wait_for(lambda: actor.next(0, 0.2) is None and said)
    assert "the token is missing or does not allow this call" in said[0]
    publisher.publish(weights(1), PLENTY)
    with pytest.raises(TransportError, match="version not taken"):
        publisher.flush(1.0)
    token_files(tmp_path / "client", "new-learner", "new-actor")
    publisher.flush(20.0)
    lease = actor.next(0, 20.0)
    assert lease is not None
    assert lease.weights is not None
    assert lease.weights.version == 1


# --- certificates ----------------------------------------------------------------------------------------------------


class Place:
    """The files of a server and of its clients, as they stand at fixed paths and are replaced there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        names = ("ca.crt", "server.crt", "server.key", "learner.crt", "learner.key", "actor.crt", "actor.key")
        self.ca, self.cert, self.key, *_ = (folder / name for name in names)

    def fill(self, authority: Authority, *trusted: Authority, days: int = 2) -> None:
        """Certificates by ``authority``; trust in it and in ``trusted``."""
        replace(self.ca, "".join(known.ca.read_text() for known in (authority, *trusted)))
        for name, alternative in (("server", "DNS:localhost"), ("learner", "URI:headrace:learner"),
                                  ("actor", "URI:headrace:actor")):  # fmt: skip
            cert, key = authority.certificate(name, alternative, days=days)
            replace(self._folder / f"{name}.key", key)
            replace(self._folder / f"{name}.crt", cert)

    @property
    def options(self) -> dict[str, Path]:
        return {"tls_cert": self.cert, "tls_key": self.key, "tls_client_ca": self.ca}

    def tls(self, role: str) -> Tls:
        return Tls(self.ca, self._folder / f"{role}.crt", self._folder / f"{role}.key")


@pytest.fixture
def old(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "old", "old")


@pytest.fixture
def new(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "new", "new")


@pytest.fixture
def place(tmp_path: Path, old: Authority) -> Place:
    place = Place(tmp_path / "place")
    place.fill(old)
    return place


def presented(address: str) -> str:
    """The certificate that a server shows to a new connection."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


def test_a_server_shows_the_certificate_of_its_files_to_every_new_connection(
    rig: Rig, place: Place, old: Authority, new: Authority
) -> None:
    server = rig.server("localhost:0", **place.options)
    publisher = rig.publisher(server.address, tls=place.tls("learner"))
    publisher.publish(weights(0), PLENTY)
    publisher.flush(10.0)
    actor = rig.subscriber(server.address, tls=place.tls("actor"))
    assert collect(actor, -1, 10.0) is not None
    before = presented(server.address)
    assert presented(server.address) == before
    place.fill(new, old)
    assert presented(server.address) == place.cert.read_text()[place.cert.read_text().index("-----BEGIN") :]
    assert presented(server.address) != before
    publisher.publish(weights(1), PLENTY)  # connections that are there go on
    publisher.flush(10.0)
    lease = collect(actor, 0, 10.0)
    assert lease is not None
    assert lease.weights is not None
    assert rig.follower(server.address, tls=place.tls("actor")).newest(-1, 10.0) is not None


def test_clients_that_lost_their_connection_come_back_with_the_certificates_of_their_files(
    rig: Rig, place: Place, old: Authority, new: Authority
) -> None:
    server = rig.server("localhost:0", **place.options)
    address = f"localhost:{server.address.rpartition(':')[2]}"
    publisher = rig.publisher(address, tls=place.tls("learner"), down_timeout_s=60)
    publisher.publish(weights(0), PLENTY)
    publisher.flush(10.0)
    actor = rig.subscriber(address, tls=place.tls("actor"))
    follower = rig.follower(address, tls=place.tls("actor"))
    assert collect(actor, -1, 10.0) is not None
    assert follower.newest(-1, 10.0) is not None
    server.stop(0.0)
    place.fill(new)  # nothing of the old authority is trusted any more, on either side
    rig.server(address, **place.options)
    publisher.publish(weights(1), PLENTY)
    publisher.flush(30.0)
    wait_for(lambda: collect(actor, 0, 1.0))
    wait_for(lambda: follower.newest(0, 1.0))
    old_actor = Tls(new.ca, *old.certificate("actor", "URI:headrace:actor"))
    stranger = rig.follower(address, tls=old_actor)
    with pytest.raises(UsageError, match="refuses a certificate"):
        [stranger.newest(-1, 1.0) for _ in range(10)]


@pytest.mark.parametrize("how", ["another key", "expired", "gone", "no PEM"])
def test_a_pair_that_will_not_do_leaves_the_former_in_use(
    rig: Rig, place: Place, old: Authority, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    server = rig.server("localhost:0", **place.options)
    rig.publisher(server.address, tls=place.tls("learner")).publish(weights(0), PLENTY)
    wait_for(lambda: server.ready)
    before, tls = presented(server.address), place.tls("actor")
    cert, key = old.certificate("other", "DNS:localhost", days=-1 if how == "expired" else 2)
    match how:
        case "another key":
            replace(place.key, key)
        case "expired":
            replace(place.key, key)
            replace(place.cert, cert)
        case "gone":
            place.cert.unlink()
        case "no PEM":
            replace(place.cert, "-----BEGIN NOTHING-----")
    for _ in range(3):
        assert presented(server.address) == before
    assert rig.follower(server.address, tls=tls).newest(-1, 10.0) is not None
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("weights.")]  # gRPC talks too
    assert 1 <= len(said) <= 2, said  # key and certificate are two changes
    assert f"weights.tls_cert {place.cert}" in said[-1]
    assert "what was read before stays in use" in said[-1]
    if how == "expired":
        assert "certificate has expired" in said[-1]
    place.fill(old)
    assert presented(server.address) != before


def test_an_expired_certificate_is_refused_and_named_on_both_sides(place: Place, old: Authority) -> None:
    place.fill(old, days=-1)
    with pytest.raises(UsageError, match=r"weights\.tls_cert .*: the certificate has expired"):
        ParamServer("localhost:0", Options(**place.options), Metrics("paramserver"))
    with pytest.raises(UsageError, match=r"weights\.tls_client_cert .*: the certificate has expired"):
        place.tls("actor").check()


@contextlib.contextmanager
def showing(cert: Path, key: Path) -> Iterator[str]:
    """The address of a server whose certificate nobody looked at before."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                link, _ = listener.accept()
                with link, contextlib.suppress(ssl.SSLError):
                    context.wrap_socket(link, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"localhost:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join(10)


@pytest.mark.parametrize(
    ("name", "days", "says"),
    [
        ("DNS:localhost", -1, r"the server's weights\.tls_cert, cannot be used: certificate has expired"),
        ("DNS:elsewhere", 2, r"the server's weights\.tls_cert, is not for that name"),
    ],
)
def test_a_servers_certificate_that_cannot_be_used_is_named_by_its_clients(
    rig: Rig, old: Authority, place: Place, name: str, days: int, says: str
) -> None:
    cert, key = old.certificate("server", name, days=days)
    with showing(cert, key) as address:
        follower = rig.follower(address, tls=place.tls("actor"))
        with pytest.raises(UsageError, match=says) as caught:
            [follower.newest(-1, 1.0) for _ in range(10)]
    assert "\n" not in str(caught.value)
