"""Certificates and keys (PEM files) are looked at before anything hangs on them: what is wrong with them is one line.

Only what the standard library has; it shows no dates of a certificate in a file, but it judges them in a handshake.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path

from headrace.common.errors import UsageError

#: OpenSSL's codes of what is wrong with a certificate.
NOT_YET_VALID, EXPIRED = 9, 10
ANOTHER_NAME = (62, 64)  # a host, an address


def check_pair(cert: Path, key: Path, cert_name: str, key_name: str, purpose: ssl.Purpose) -> None:
    """Raises :class:`UsageError`, naming what is wrong, unless ``cert`` holds a certificate that is valid now and
    ``key`` its private key. ``purpose``: whom it speaks for, ``SERVER_AUTH`` a server, ``CLIENT_AUTH`` a client."""
    for path, name in ((cert, cert_name), (key, key_name)):
        _check_readable(path, name)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as e:
        raise UsageError(
            f"{cert_name} {cert} and {key_name} {key}: not a certificate and its own private key "
            f"(PEM, without a password); are they swapped? ({_reason(e)})"
        ) from e
    if wrong := _wrong_dates(cert, key, purpose):
        raise UsageError(f"{cert_name} {cert}: the {wrong}; give one that is valid")


def check_authority(path: Path, name: str) -> None:
    """Raises :class:`UsageError` unless ``path`` holds certificates to trust, one of them at least not expired."""
    _check_readable(path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as e:
        raise UsageError(f"{name} {path}: holds no certificate (PEM) ({_reason(e)})") from e
    ends_s = [ssl.cert_time_to_seconds(str(ca["notAfter"])) for ca in context.get_ca_certs()]
    if ends_s and max(ends_s) < time.time():
        raise UsageError(f"{name} {path}: the certificate has expired; give one that is valid")


def _wrong_dates(cert: Path, key: Path, purpose: ssl.Purpose) -> str:
    """What OpenSSL says of a certificate that is not valid now, after a handshake in memory in which it vouches for
    itself; "" for one that is."""
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    for context in (client, server):
        context.load_cert_chain(cert, key, password="")
    judge = client if purpose is ssl.Purpose.SERVER_AUTH else server
    judge.verify_mode = ssl.CERT_REQUIRED
    judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    judge.load_verify_locations(cert)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    try:
        for end in ends * 2:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as e:
        return e.verify_message if e.verify_code in (NOT_YET_VALID, EXPIRED) else ""
    return ""


def _check_readable(path: Path, name: str) -> None:
    try:
        path.read_bytes()
    except OSError as e:
        raise UsageError(f"{name} {path}: {e.strerror}") from e


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")
