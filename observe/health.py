"""headrace health http://host:port: does this role's own loop turn? For the health checks of containers and probes.

Exit code 0 where /healthz says so, 1 where it says no or nobody answers. Imports nothing heavy: it runs every few
seconds.
"""

from __future__ import annotations

import argparse
import http.client
import sys
from urllib.parse import urlsplit

from headrace.common.errors import UsageError

DEFAULT = "http://127.0.0.1:9100"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Exit code 0 where the role's own loop turns, 1 where it does not or nobody answers."
    parser.add_argument("url", nargs="?", default=DEFAULT, metavar="URL", help=f"its metrics address ({DEFAULT})")
    parser.add_argument("--timeout-s", type=float, default=3.0, metavar="S", help="for the answer (default 3)")


def run(args: argparse.Namespace) -> int:
    try:
        well, said = ask(args.url, args.timeout_s)
    except (OSError, http.client.HTTPException) as error:
        well, said = False, f"no answer: {error}"
    print(f"{args.url}: {said}", file=sys.stdout if well else sys.stderr)
    return 0 if well else 1


def ask(url: str, timeout_s: float) -> tuple[bool, str]:
    """Whether the role at ``url`` is well, and its own words. Raises :class:`UsageError`, ``OSError`` and
    ``http.client.HTTPException``."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"metrics address {url!r}: use http://host:port")
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status == http.client.OK, answer.read(4096).decode(errors="replace").strip()
    finally:
        connection.close()
