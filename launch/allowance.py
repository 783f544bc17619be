"""How much processor time a process may take beside others: a share of the time that passes, and a little at once.

Kept by resting. What counts is this process's processor time, its start included, so an evaluation that the machine
held up is not paid for twice.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds of one core that may be taken at once: to start, and for a first evaluation. With a share of 2 % that is 3 %
#: of one core over three minutes, and less over longer ones.
AT_ONCE_S = 1.8
_LOOK_S = 0.2
#: About a tenth of a core where everybody else wants all of them. (At 19 it would be a hundredth: a minute to start.)
_NICE = 10


class Allowance:
    """``share`` of one core from now on; 1: no limit."""

    def __init__(
        self,
        share: float,
        now: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.process_time,
    ) -> None:
        self._share, self._now, self._spent = share, now, spent
        self._began_s = now()

    def lacking_s(self, more_s: float = 0.0) -> float:
        """How long to rest before ``more_s`` of processor time may be spent; 0: not at all."""
        if self._share >= 1:
            return 0.0
        due_s = (self._spent() + more_s - AT_ONCE_S) / self._share
        return max(0.0, self._began_s + due_s - self._now())

    def rest(self, stop: Callable[[], bool]) -> None:
        """Sleep until what was spent is within the allowance, or ``stop()`` is true."""
        while (lacking_s := self.lacking_s()) > 0 and not stop():
            time.sleep(min(lacking_s, _LOOK_S))


def step_back() -> None:
    """Let others go first. Where Linux shares a processor among sessions (autogroup), with the whole session."""
    os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICE))
