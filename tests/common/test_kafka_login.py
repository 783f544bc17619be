"""Who logs in at a broker, and where the secret comes from: the environment, or a file that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.common.transport.kafka_address import Secret, parse

from ..certificates import Authority
from .kafka_streams import PASSWORD, USER

URL = "kafka://host:9092/topic"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Named as the file with the password of ``USER``; it is not there yet."""
    monkeypatch.setenv("KAFKA_SASL_USERNAME", USER)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    return tmp_path / "password"


def test_the_password_of_a_file_is_read_anew_for_every_client(file: Path) -> None:
    file.write_text(f"{PASSWORD}\n")
    address = parse(URL)
    found = address.full_login()["sasl_plain_password"]
    assert found == PASSWORD
    assert isinstance(found, Secret)
    assert PASSWORD not in f"{address!r} {dict(address.login)} {address.full_login()}"
    file.write_text(" another one")
    assert address.full_login()["sasl_plain_password"] == " another one"


def test_the_keys_password_may_stand_in_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("of the key\r\n")
    monkeypatch.setenv("KAFKA_SSL_PASSWORD_FILE", str(tmp_path / "password"))
    assert parse(f"{URL}?security=SSL").full_login()["ssl_password"] == "of the key"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        (b"", "is empty; it must hold the secret"),
        (b"\n \n", "is empty; it must hold the secret"),
        (b"horse\nstaple\n", "holds 2 lines; at most 1"),
        (b"\xff\xfe", "no text"),
    ],
    ids=["missing", "empty", "blank", "two lines", "no text"],
)
def test_a_file_that_holds_no_password_is_one_line(file: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        parse(URL)
    assert str(caught.value).startswith(f"KAFKA_SASL_PASSWORD_FILE {file}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "horse" not in str(caught.value)


def test_a_folder_is_no_file(file: Path) -> None:
    file.mkdir()
    with pytest.raises(UsageError, match=r"KAFKA_SASL_PASSWORD_FILE .*: Is a directory"):
        parse(URL)


def test_both_or_neither_is_one_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(PASSWORD)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    both = "kafka: KAFKA_SASL_PASSWORD and KAFKA_SASL_PASSWORD_FILE are both set; set one of them"
    with pytest.raises(UsageError, match=f"^{both}$"):
        parse(URL)
    monkeypatch.delenv("KAFKA_SASL_PASSWORD")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", "")
    with pytest.raises(UsageError, match="KAFKA_SASL_PASSWORD_FILE is empty; it must name the file"):
        parse(URL)
    monkeypatch.delenv("KAFKA_SASL_PASSWORD_FILE")
    with pytest.raises(UsageError, match="needs a login; set KAFKA_SASL_PASSWORD_FILE in the environment"):
        parse(URL)


def test_what_was_given_for_a_login_is_not_left_unused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user and a password, and no word on the protocol: never in clear."""
    file.write_text(PASSWORD)
    assert parse(URL).login["security_protocol"] == "SASL_SSL"
    assert parse(URL).login["sasl_mechanism"] == "SCRAM-SHA-512"
    assert parse(f"{URL}?security=PLAINTEXT").login["security_protocol"] == "PLAINTEXT"
    monkeypatch.delenv("KAFKA_SASL_USERNAME")
    monkeypatch.delenv("KAFKA_SASL_PASSWORD_FILE")
    monkeypatch.setenv("KAFKA_SSL_CAFILE", str(Authority(file.parent).ca))
    assert parse(URL).login["security_protocol"] == "SSL"


def test_certificates_that_cannot_be_right_are_one_line(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (cert, key), (expired, its_key) = authority.certificate("a"), authority.certificate("b", days=-1)
    for options, says in (
        (f"cafile={key}", f"KAFKA_SSL_CAFILE {key}: holds no certificate"),
        (
            f"certfile={cert}&keyfile={its_key}",
            f"KAFKA_SSL_CERTFILE {cert} and KAFKA_SSL_KEYFILE {its_key}: not a cert",
        ),
        (f"certfile={expired}&keyfile={its_key}", f"KAFKA_SSL_CERTFILE {expired}: the certificate has expired"),
    ):
        with pytest.raises(UsageError) as caught:
            parse(f"{URL}?security=SSL&{options}")
        assert str(caught.value).startswith(says)
        assert "\n" not in str(caught.value)
