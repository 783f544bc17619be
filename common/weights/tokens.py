"""Bearer tokens in files: one a line, at most two, so that an old and a new one hold side by side while they are being
replaced (SECURITY.md, Rotation). A server takes each of them, a client shows the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.common.reloaded import Reloaded
from headrace.common.secret_file import read_secrets

#: Gives the token to show, asked for every call; "" for none.
Token = Callable[[], str]


def read_tokens(path: Path, setting: str) -> tuple[str, ...]:
    """The tokens in a file. Raises :class:`UsageError` for one that cannot be read or holds anything else."""
    found = tuple(line.strip() for line in read_secrets(path, setting, at_most=2))
    if not all(token.isascii() and token.isprintable() for token in found):
        raise UsageError(f"{setting} {path}: holds no token (a line of printable ASCII)")
    return found


def shown(path: Path, setting: str) -> Token:
    """What a client shows who was given this file: its first token, as it is by then."""
    tokens = Reloaded((path,), lambda: read_tokens(path, setting))
    return lambda: tokens.now()[0]


def none() -> str:
    """The token of who was given none."""
    return ""
