"""Ports for servers that have to be told theirs before they start.

A free one is not taken from the range out of which the kernel gives clients theirs: until the server has bound it, any
connection of anybody may be given it.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from headrace.common.errors import UsageError

HOST = "127.0.0.1"
_FROM, _LEAST = 15_000, 2_000
_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Linux's default; elsewhere clients' ports begin higher still.
_USUAL_CLIENTS_FROM = 32_768
_TRIES = 100


def chosen(port: int, option: str) -> int:
    """``port``, or a free one for 0. Raises :class:`UsageError`, which names ``option``, for one that is
    taken, or none."""
    if port == 0:
        return free_port()
    if not 0 < port < 65536:
        raise UsageError(f"broker: {option} {port} is no port; use 1 to 65535, or 0 for any free one")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"broker: port {port} on {HOST} cannot be used ({error.strerror}); choose {option}"
            ) from error
    return port


def free_port(clients: Path = _CLIENTS) -> int:
    """A loopback port that is free now; one of the kernel's choice where clients are given nearly all there are.
    ``clients``: where the kernel says which they are."""
    clients_from = int(clients.read_text().split()[0]) if clients.exists() else _USUAL_CLIENTS_FROM
    if clients_from - _FROM >= _LEAST:
        for _ in range(_TRIES):
            if (port := _bound(random.SystemRandom().randrange(_FROM, clients_from))) is not None:
                return port
    port = _bound(0)
    assert port is not None, "the kernel has no port left"
    return port


def _bound(port: int) -> int | None:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])
