"""headrace setup files: what each role is given, that it is good, and that a second run changes nothing that is."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from headrace.common.errors import UsageError
from headrace.launch import cli
from headrace.launch.setup import authority, files
from headrace.launch.setup.files import Names

NAMES = Names(paramserver=("paramserver",), kafka=("kafka", "192.0.2.7"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_role_has_its_own_and_no_more(tmp_path: Path) -> None:
    made = files.make(tmp_path, NAMES)
    assert set(made) == set(content(tmp_path)) == {
        "ca/ca.crt", "ca/ca.key", "kafka/keystore.pem",
        "paramserver/ca.crt", "paramserver/server.crt", "paramserver/server.key",
        "paramserver/publish.token", "paramserver/subscribe.token",
        "learner/ca.crt", "learner/client.crt", "learner/client.key", "learner/publish.token", "learner/kafka.password",
        "actor/ca.crt", "actor/client.crt", "actor/client.key", "actor/subscribe.token", "actor/kafka.password",
        "evaluator/ca.crt", "evaluator/client.crt", "evaluator/client.key", "evaluator/subscribe.token",
        "grafana/admin.password",
    }  # fmt: skip
    held = content(tmp_path)
    assert held["learner/publish.token"] == held["paramserver/publish.token"]
    assert held["actor/subscribe.token"] == held["evaluator/subscribe.token"] == held["paramserver/subscribe.token"]
    secrets = {value for name, value in held.items() if name.endswith((".token", ".password"))}
    assert len(secrets) == 5
    assert min(map(len, secrets)) > 40


def test_certificates_name_hosts_and_roles_and_are_signed(tmp_path: Path) -> None:
    files.make(tmp_path, NAMES)
    held = content(tmp_path)
    signer = x509.load_pem_x509_certificate(held["ca/ca.crt"])
    for name, says in (
        ("paramserver/server.crt", {x509.DNSName("paramserver"), x509.DNSName("localhost")}),
        ("learner/client.crt", {x509.UniformResourceIdentifier("headrace:learner")}),
        ("actor/client.crt", {x509.UniformResourceIdentifier("headrace:actor")}),
        ("evaluator/client.crt", {x509.UniformResourceIdentifier("headrace:actor")}),
    ):
        found = x509.load_pem_x509_certificate(held[name])
        found.verify_directly_issued_by(signer)
        assert set(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == says
        assert found.not_valid_after_utc - datetime.now(UTC) > timedelta(days=360)
        pair = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pair.load_cert_chain(tmp_path / name, (tmp_path / name).with_suffix(".key"))
    assert b"BEGIN PRIVATE KEY" in held["kafka/keystore.pem"]
    assert b"BEGIN CERTIFICATE" in held["kafka/keystore.pem"]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    files.make(tmp_path, NAMES)
    before = content(tmp_path)
    assert files.make(tmp_path, NAMES) == []
    assert content(tmp_path) == before


def test_what_is_missing_or_named_otherwise_is_made_and_the_rest_stays(tmp_path: Path) -> None:
    files.make(tmp_path, NAMES)
    before = content(tmp_path)
    (tmp_path / "actor" / "subscribe.token").unlink()  # a token that is taken from one is a new one for all
    (tmp_path / "learner" / "client.crt").unlink()
    made = files.make(tmp_path, Names(paramserver=("elsewhere",), kafka=NAMES.kafka))
    tokens = {"paramserver/subscribe.token", "actor/subscribe.token", "evaluator/subscribe.token"}
    pairs = {"learner/client.crt", "learner/client.key", "paramserver/server.crt", "paramserver/server.key"}
    assert set(made) == tokens | pairs
    after = content(tmp_path)
    assert {name for name in after if after[name] != before[name]} == set(made)


def test_a_certificate_that_ends_soon_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as short:
        short.setattr(authority, "CERTIFICATE_DAYS", authority.RENEW_DAYS - 1)
        files.make(tmp_path, NAMES)
    made = files.make(tmp_path, NAMES)
    assert set(made) == {"kafka/keystore.pem", *(f"{role}/client.{end}" for role in ("learner", "actor", "evaluator")
                         for end in ("crt", "key")), "paramserver/server.crt", "paramserver/server.key"}  # fmt: skip


def test_an_authority_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    files.make(tmp_path, NAMES)
    (tmp_path / "ca" / "ca.key").unlink()
    with pytest.raises(UsageError, match=r"ca/ca\.key: .*restore them") as caught:
        files.make(tmp_path, NAMES)
    assert "\n" not in str(caught.value)


def test_who_may_read(tmp_path: Path) -> None:
    files.make(tmp_path / "alone", NAMES)
    files.make(tmp_path / "group", NAMES, group=os.getgid())
    for where, folder_mode, file_mode in (("alone", 0o700, 0o400), ("group", 0o2750, 0o440)):
        for path in (tmp_path / where).glob("*/*"):
            assert stat.S_IMODE(path.parent.stat().st_mode) == folder_mode
            assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (file_mode, os.getgid())


def test_the_command_makes_run_directories_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "setup",
        "files",
        str(tmp_path / "secrets"),
        "--owner",
        str(os.getuid()),
        "--own",
        str(tmp_path / "runs/a"),
    ]
    assert cli.main(words) == 0
    assert (tmp_path / "runs" / "a").is_dir()
    assert "ca/ca.crt" in capsys.readouterr().out
    assert cli.main(words) == 0
    assert "everything is there already" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["setup", "files", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "setup needs to write there" in said
