"""What a reader of the log puts up with, and for how long: a broker that is away, a log that seems to be another, a
client that reads nothing of what there is. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.common.errors import LogLost, TransportError

LOST_AFTER_S = 5.0  # a broker that has just started, or taken over a partition, may know less for a moment
STUCK_AFTER_S = 10.0


class Patience:
    """``where`` begins every error. A broker may be away for ``away_s``."""

    def __init__(self, where: str, away_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._where, self._away_s, self._clock = where, away_s, clock
        self._away_since_s: float | None = None
        self._lost_since_s: float | None = None
        self._stuck_since_s: float | None = None
        self._stuck_after_s = STUCK_AFTER_S

    def records_came(self) -> None:
        self._away_since_s = self._stuck_since_s = None
        self._stuck_after_s = STUCK_AFTER_S

    def client_answers(self) -> None:
        self._away_since_s = None

    def not_stuck(self) -> None:
        """There was nothing to read, or no broker to read from."""
        self._stuck_since_s = None

    def away(self, error: BaseException) -> None:
        """Raises :class:`TransportError` once the broker was away for too long."""
        now = self._clock()
        self._away_since_s = since = now if self._away_since_s is None else self._away_since_s
        if now - since > self._away_s:
            raise TransportError(f"{self._where}: no broker for {now - since:.0f} s: {error}") from error

    def lost(self, problem: str) -> None:
        """Raises :class:`LogLost` once there has been a problem, at each call, for a while ("" for none)."""
        now = self._clock()
        if not problem:
            self._lost_since_s = None
            return
        self._lost_since_s = since = now if self._lost_since_s is None else self._lost_since_s
        if now - since > LOST_AFTER_S:
            raise LogLost(f"{self._where}: {problem}")

    def stuck(self) -> float | None:
        """To be called while a broker answers and nothing is read of what there is. Seconds since that began, once they
        are too many, and twice as many the next time: what is slow (a large batch over a thin line) comes through."""
        now = self._clock()
        self._stuck_since_s = since = now if self._stuck_since_s is None else self._stuck_since_s
        if now - since < self._stuck_after_s:
            return None
        self._stuck_since_s, self._stuck_after_s = None, 2 * self._stuck_after_s
        return now - since
