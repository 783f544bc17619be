"""Whoever waits says for what: after a few seconds, again now and then, and gives up in the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from headrace.common.errors import TransportError

FIRST_WORD_S = 5.0
NEXT_WORD_S = 30.0


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Waiting:
    """The patience of one process with one other. ``who`` speaks, ``timeout_s`` is how long it goes on trying."""

    def __init__(
        self,
        who: str,
        timeout_s: float,
        say: Callable[[str], None] = _print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._who, self._timeout_s, self._say, self._clock = who, timeout_s, say, clock
        self._since_s: float | None = None
        self._word_due_s = 0.0

    @property
    def under_way(self) -> bool:
        return self._since_s is not None

    def over(self) -> None:
        """What was waited for has come."""
        self._since_s = None

    def goes_on(self, began_s: float, what: str) -> None:
        """A try that began at ``began_s`` (of the clock) gave nothing; ``what`` is waited for, in words. Raises
        :class:`TransportError` when that has gone on for ``timeout_s``."""
        if self._since_s is None:
            self._since_s, self._word_due_s = began_s, began_s + FIRST_WORD_S
        now = self._clock()
        waited_s = now - self._since_s
        if waited_s >= self._timeout_s:
            raise TransportError(f"{what}, for {waited_s:.0f} s; gives up")
        if now >= self._word_due_s:
            self._word_due_s = now + NEXT_WORD_S
            self._say(f"{self._who}: {what}, for {waited_s:.0f} s; goes on waiting")
