"""Ports for servers that have to be told theirs before they start.

Not from the range out of which the kernel gives clients theirs: until the server has bound such a port, any connection
of anybody may be given it.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FROM, _MANY = 15_000, 2_000
_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Linux's default; elsewhere clients' ports begin higher still.
_USUAL_CLIENTS_FROM = 32_768
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Different loopback ports that are free now, none of them given before in this process."""
    clients_from = int(_CLIENTS.read_text().split()[0]) if _CLIENTS.exists() else _USUAL_CLIENTS_FROM
    assert clients_from - _FROM > _MANY, f"clients' ports begin at {clients_from}: too few are left for servers"
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(_FROM, clients_from)
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    return found


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
