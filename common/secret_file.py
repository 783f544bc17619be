"""Secrets that stand in files: read whole, checked, and never part of an error message."""

from __future__ import annotations

from pathlib import Path

from headrace.common.errors import UsageError


def read_secrets(path: Path, setting: str, at_most: int = 1) -> tuple[str, ...]:
    """The secrets in a file, one a line, empty lines left out. Raises :class:`UsageError`, naming ``setting`` and file,
    for one that cannot be read, is no text, holds none, or more than ``at_most``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{setting} {path}: {getattr(error, 'strerror', None) or 'no text'}") from error
    found = tuple(line for line in (line.rstrip("\r") for line in text.split("\n")) if line.strip())
    if not found:
        raise UsageError(f"{setting} {path}: is empty; it must hold the secret, on a line")
    if len(found) > at_most:
        raise UsageError(f"{setting} {path}: holds {len(found)} lines; at most {at_most} may be there")
    return found
