"""The address of a parameter server: host:port, or unix:/path on one machine; several for a client that may turn to
another one."""

from __future__ import annotations

import re
from pathlib import Path

from headrace.common.errors import UsageError


def split(address: str) -> tuple[str, int]:
    """Host and port; of a Unix socket its path (as the kernel takes it) and 0. Raises :class:`UsageError`."""
    if address.startswith("unix-abstract:"):
        return "\0" + address.removeprefix("unix-abstract:"), 0
    if address.startswith("unix:"):
        return str(socket_path(address)), 0
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})", address)
    if not found or int(found[2]) > 65535:
        raise UsageError(
            f"weights.address {address!r}: use host:port (a port of 1 to 65535; 0 lets a server pick) or unix:/path"
        )
    return found[1].strip("[]"), int(found[2])


def addresses(text: str) -> tuple[str, ...]:
    """Parameter servers in the order of preference, separated by commas. Raises :class:`UsageError`."""
    found = tuple(address.strip() for address in text.split(","))
    for address in found:
        split(address)
    return found


def socket_path(address: str) -> Path | None:
    """The path in unix:/path or unix:///path; None for any other address."""
    if not address.startswith("unix:"):
        return None
    path = address.removeprefix("unix:")
    if not path.strip("/"):
        raise UsageError(f"weights.address {address!r}: names no path; use unix:/path")
    return Path(path[2:] if path.startswith("///") else path)
