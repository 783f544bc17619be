"""What a client of the parameter server shows and trusts: PEM files; and why nothing can be said to a server that is
there."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from headrace.common.errors import UsageError
from headrace.common.pem import ANOTHER_NAME, EXPIRED, NOT_YET_VALID, check_authority, check_pair
from headrace.common.weights.address import split

_PROBE_S, _AGAIN_S = 1.0, 0.5


@dataclass(frozen=True)
class Tls:
    """``ca``: whom the client trusts. ``cert``, ``key``: its own certificate, for servers that ask for one."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)

    def check(self) -> None:
        """Raises :class:`UsageError` for files that are missing, swapped, no PEM, or not valid now."""
        check_authority(self.ca, "weights.tls_ca")
        if (self.cert is None) != (self.key is None):
            raise UsageError("weights.tls_client_cert and weights.tls_client_key belong together; give both or neither")
        if self.cert is not None and self.key is not None:
            names = ("weights.tls_client_cert", "weights.tls_client_key")
            check_pair(self.cert, self.key, *names, ssl.Purpose.CLIENT_AUTH)

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel. Raises :class:`UsageError` as ``check`` does."""
        self.check()
        pair = (self.key.read_bytes(), self.cert.read_bytes()) if self.cert and self.key else (None, None)
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), *pair)


def refusal(address: str, tls: Tls | None) -> str:
    """Why nothing can be said to the server at ``address``, as far as waiting will not mend it; "" where it may."""
    if tls is None:
        return _refusal_in_clear(address)
    try:
        tls.check()
    except UsageError as e:
        return str(e)
    for again in (True, False):
        try:
            return _talk(address, tls)
        except ssl.SSLCertVerificationError as e:
            return _distrust(e, tls)
        except (ssl.SSLError, ConnectionResetError) as e:
            reason = getattr(e, "reason", None) or ""
            if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
                return "it does not speak TLS; leave weights.tls_ca out"
            if not again:  # gRPC tells no reason, it hangs up; but so does a server that ends just now
                shown = f"weights.tls_client_cert {tls.cert}" if tls.cert else "weights.tls_client_cert is not set"
                return f"it hangs up, which is how it refuses a certificate ({shown})"
            time.sleep(_AGAIN_S)
        except OSError:
            return ""  # nobody there, or busy: to be waited for
    return ""


def _distrust(error: ssl.SSLCertVerificationError, tls: Tls) -> str:
    if error.verify_code in (EXPIRED, NOT_YET_VALID):
        return f"its certificate, the server's weights.tls_cert, cannot be used: {error.verify_message}"
    if error.verify_code in ANOTHER_NAME:
        return f"its certificate, the server's weights.tls_cert, is not for that name: {error.verify_message}"
    return f"its certificate is not trusted by weights.tls_ca {tls.ca}: {error.verify_message}"


def _talk(address: str, tls: Tls) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls.ca)
    context.set_alpn_protocols(["h2"])
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key, password="")
    with (
        _connect(address) as link,
        context.wrap_socket(link, server_hostname=split(address)[0] if split(address)[1] else "localhost") as talk,
    ):
        if not talk.recv(1):  # its word on our certificate comes after the handshake; HTTP/2 begins with the server's
            raise ConnectionResetError
    return ""


def _refusal_in_clear(address: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with _connect(address) as link, context.wrap_socket(link):
            pass
    except OSError:
        return ""
    return "it speaks TLS; set weights.tls_ca to the certificate to trust"


def _connect(address: str) -> socket.socket:
    host, port = split(address)
    if port:
        return socket.create_connection((host, port), _PROBE_S)
    link = socket.socket(socket.AF_UNIX)
    try:
        link.settimeout(_PROBE_S)
        link.connect(host)
    except OSError:
        link.close()
        raise
    return link
