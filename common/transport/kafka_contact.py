"""First contact with a broker through kafka-python, whatever the client later: a failure is one line that says why."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

from kafka import errors

from headrace.common.errors import NoAnswer, TransportError, UsageError
from headrace.common.transport.kafka_address import CONNECT_TIMEOUT_S, Address
from headrace.common.transport.kafka_client import REQUEST_TIMEOUT_MS

#: The library's; at DEBUG it prints every request, the one with the password too.
_LOG = logging.getLogger("kafka")

#: A machine that is gone without a word is noticed after some 12 s. The library has a deadline for all it says to a
#: broker but for the handshake of TLS: it would wait there for ever.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, option), value)
        for option, value in (("TCP_NODELAY", 1), ("TCP_KEEPIDLE", 6), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
        if hasattr(socket, option)  # macOS calls the second TCP_KEEPALIVE, and has two hours for it
    ),
]

AWAY = (errors.RetriableError, errors.KafkaTimeoutError, errors.KafkaConnectionError)


def connect(make: Any, address: Address, **more: Any) -> Any:
    """A client of the library, made by ``make``; raises :class:`UsageError` when that is not possible.

    A constructor of the library that fails leaves its thread and its sockets behind; here they are closed.
    """
    if address.login["security_protocol"].startswith("SASL"):
        _LOG.setLevel(max(_LOG.getEffectiveLevel(), logging.INFO))
    opened: list[Any] = []

    def kept(**configs: Any) -> Any:
        opened.append(make.DEFAULT_CONFIG["kafka_client"](**configs))
        return opened[-1]

    settings = {
        **address.full_login(),
        "bootstrap_servers": list(address.brokers),
        "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000),
        "reconnect_backoff_max_ms": 1000,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "socket_options": _KEEPALIVE,
    }
    try:
        with translated(address):
            return make(**{**settings, **more}, kafka_client=kept)
    except BaseException:
        for client in opened:
            client.close()
        raise


@contextlib.contextmanager
def translated(address: Address, has_answered: bool = False) -> Iterator[None]:
    """Turn what a first contact may raise into one line for a person. ``has_answered``: a broker did, over the same
    connection."""
    heard = _Overheard()
    _LOG.addHandler(heard)
    try:
        yield
    except errors.AuthorizationError as error:
        raise UsageError(f"{address.where}: the login is not allowed to do this: {error}") from error
    except (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError) as error:
        raise UsageError(f"{address.where}: security settings and broker do not fit: {error}") from error
    except (errors.SaslAuthenticationFailedError, *AWAY) as error:
        raise _no_contact(address, [*heard.errors, error], has_answered) from error
    except errors.KafkaError as error:
        raise TransportError(f"{address.where}: {line(error)}") from error
    finally:
        _LOG.removeHandler(heard)


class _Overheard(logging.Handler):
    """The library tries again until its time is up, and tells only its log why: keeps the errors logged meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[Exception] = []

    def emit(self, record: logging.LogRecord) -> None:
        args = record.args if isinstance(record.args, tuple) else ()
        self.errors = [*self.errors[-20:], *(arg for arg in args if isinstance(arg, Exception))]


def _no_contact(address: Address, heard: list[Exception], has_answered: bool) -> UsageError:
    right = f"is security={address.login['security_protocol']} right?"
    login, variables = f"the login of {address.user!r}", "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
    variables += "_FILE" if "sasl_plain_password" in address.secret_files else ""
    if address.login["security_protocol"].startswith("SASL"):
        right = f"check {login} ({variables}), and {right}"
    said = " ".join(map(str, heard))
    if any(isinstance(e, errors.SaslAuthenticationFailedError) for e in heard):
        why = f"the broker refuses {login}; check {variables}"
    elif "CERTIFICATE_VERIFY_FAILED" in said:
        why = _distrust(address, said)
    elif _ends_connections(heard) and not has_answered:
        why = f"the broker ends the connection; {right}"
    else:
        running = f"no broker answers within {CONNECT_TIMEOUT_S:.0f} s; is it running (headrace broker status)"
        return NoAnswer(f"{address.where}: {running}, and {right}")
    return UsageError(f"{address.where}: {why}")


def _ends_connections(heard: list[Exception]) -> bool:
    """Again and again, as one does that talks otherwise; one that dies does it once, and refuses or is silent then.
    (An error may be logged several times.)"""
    different = {id(error): str(error) for error in heard}.values()
    ended = sum("disconnected" in said or "Handshake failed" in said for said in different)
    return ended > 1 and not any("ECONNREFUSED" in said for said in different)


def _distrust(address: Address, said: str) -> str:
    if "certificate has expired" in said:
        return "the broker's certificate has expired; give the broker (its ssl.keystore) one that is valid"
    if "mismatch" in said:
        return "the broker's certificate is not for the name it is called by; call it by a name that stands there"
    trusted = address.login.get("ssl_cafile", "the authorities that this system trusts")
    return f"the broker's certificate is not trusted: {trusted} did not sign it; set cafile= or KAFKA_SSL_CAFILE"


def line(error: BaseException) -> str:
    text = str(error).splitlines()
    name = type(error).__name__
    return text[0] if text and name in text[0] else f"{name}: {text[0]}" if text else name
