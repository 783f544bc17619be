"""Ports for servers that have to be told theirs before they start."""

from __future__ import annotations

from headrace.launch.broker import ports

_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Different loopback ports that are free now, none of them given before in this process."""
    found: list[int] = []
    while len(found) < count:
        port = ports.free_port()
        if port not in _given:
            _given.add(port)
            found.append(port)
    return found


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
