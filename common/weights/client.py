"""What both clients of the parameter server share: the channel, the token, when to try again, and what errors mean.

Tokens and certificates are those of their files: a token at the next call, certificates at the next connection. Who was
let in once and is not any more is told so and tries again, as with a server that is away: the new ones may be on their
way.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import grpc

from headrace.common.errors import Fenced, HeadraceError, TransportError, UsageError
from headrace.common.reloaded import Reloaded
from headrace.common.weights.address import addresses
from headrace.common.weights.chunks import MESSAGE_BYTES
from headrace.common.weights.tls import Tls, refusal
from headrace.common.weights.tokens import Token

SERVICE = "headrace.v1.ParamServer"
#: The clients' half of the keepalive agreement; the server's half is in paramserver/server.py.
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that came back is to be found soon: its actors have settle_s to say what they hold.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
#: Slowest network a publication is given time for, on top of SLACK_S.
MIN_BYTES_PER_S = 1 << 20
SLACK_S = 10.0
PROBE_EVERY_S = 5.0
#: Time in which a channel tells that it is connected, if it is.
_CONNECTED_S = 0.5


class Client:
    """One channel to ``address``, another one where a connection was lost and its certificates were replaced. Of
    several addresses the first, and the next where that one is away (relays, and the root last). ``token`` goes with
    every call; ``tls`` turns TLS on.

    Raises :class:`UsageError` for an address or a TLS file that cannot be right.
    """

    def __init__(self, address: str, token: str | Token, tls: Tls | None) -> None:
        self._addresses = addresses(address)
        self.address, self._tls = self._addresses[0], tls
        self._token: Token = token if callable(token) else lambda: token
        self._credentials = None if tls is None else Reloaded(tls.files, tls.credentials)
        self._used = None if self._credentials is None else self._credentials.now()
        self._channel = self._open()
        self._welcome = False
        self._probe_at_s = 0.0
        #: What is wrong between us and a server that is there, as far as is known; "" where nothing is.
        self.why = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Goes with every call."""
        token = self._token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    def unary(self, method: str) -> Any:
        return self._channel.unary_unary(f"/{SERVICE}/{method}")

    def upload(self, method: str) -> Any:
        return self._channel.stream_unary(f"/{SERVICE}/{method}")

    def download(self, method: str) -> Any:
        return self._channel.unary_stream(f"/{SERVICE}/{method}")

    def connected(self) -> bool:
        """Whether there is a connection now; a server that is gone shows within the keepalive's time."""
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=_CONNECTED_S)
        except grpc.FutureTimeoutError:
            return False
        finally:
            ready.cancel()
        return True

    def close(self) -> None:
        self._channel.close()

    def turn(self) -> None:
        """This server is away, or has no room: the next one, if there are others. (Not while a call is open.)"""
        if len(self._addresses) > 1:
            former, at = self._channel, self._addresses.index(self.address)
            self.address = self._addresses[(at + 1) % len(self._addresses)]
            self._channel = self._open()
            former.close()

    def in_touch(self) -> bool:
        """Whether a server that let us in is there; of another one nothing is known by its silence."""
        return self._welcome and self.connected()

    def welcome(self) -> None:
        """The server has let us in."""
        self._welcome, self.why = True, ""

    def refusal(self) -> UsageError | None:
        """Asked while nothing is heard: what is wrong between us and a server that is there, if that is final. gRPC
        does not tell a TLS that cannot work from a server that is away, so it is tried by hand, now and then."""
        now_s = time.monotonic()
        if self._renewed() or now_s < self._probe_at_s:
            return None
        self.why = refusal(self.address, self._tls)
        self._probe_at_s = time.monotonic() + PROBE_EVERY_S
        return self._final(f"parameter server {self.address}: {self.why}") if self.why else None

    def final(self, error: grpc.RpcError) -> HeadraceError | None:
        """What ``error`` means if trying again cannot help; None if it can."""
        details = f"parameter server {self.address}: {error.details()}"
        match error.code():
            case grpc.StatusCode.UNAVAILABLE:
                self._renewed()
            case grpc.StatusCode.ABORTED:
                return Fenced(details)
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return self._final(details)
            case grpc.StatusCode.FAILED_PRECONDITION:
                return UsageError(details)
            case grpc.StatusCode.UNIMPLEMENTED:
                return UsageError(f"{details}; another service listens there, or one of another version")
            case grpc.StatusCode.INVALID_ARGUMENT:
                return TransportError(details)
        return None

    def _final(self, refused: str) -> UsageError | None:
        return None if self._welcome else UsageError(refused)

    def _open(self) -> grpc.Channel:
        if self._used is None:
            return grpc.insecure_channel(self.address, CHANNEL_OPTIONS)
        return grpc.secure_channel(self.address, self._used, CHANNEL_OPTIONS)

    def _renewed(self) -> bool:
        """Whether a connection that is lost is made anew with other certificates. (gRPC would go on trying with those
        that it was given.)"""
        if self._credentials is None or (read := self._credentials.now()) is self._used:
            return False
        former, self._used = self._channel, read
        self._channel = self._open()
        former.close()
        return True


class Backoff:
    """Pauses between tries: up to 0.2, 0.4, ... ``longest_s``, at random, for many clients must not come at once."""

    def __init__(self, longest_s: float = LONGEST_PAUSE_S) -> None:
        self._longest_s, self._failures, self._not_before_s = longest_s, 0, 0.0

    def failed(self) -> None:
        longest_s = min(self._longest_s, FIRST_PAUSE_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._not_before_s = time.monotonic() + random.uniform(0.0, longest_s)

    def worked(self) -> None:
        self._failures, self._not_before_s = 0, 0.0

    def wait(self, until_s: float, stop: threading.Event) -> bool:
        """Wait for the next try; False if ``until_s`` (monotonic) came first or ``stop`` was set."""
        pause_s = min(self._not_before_s, until_s) - time.monotonic()
        if pause_s > 0 and stop.wait(pause_s):
            return False
        return self._not_before_s <= until_s


def transfer_s(total_bytes: int) -> float:
    """Time a publication of ``total_bytes`` may take."""
    return SLACK_S + total_bytes / MIN_BYTES_PER_S
