"""Whether a role's own loop turns: what its /healthz answers, and what restarts it on a platform.

    pulse = Pulse(timeout_s=300)
    while ...: work(); pulse.beat()             metrics.serve(port, healthy=pulse.beats)

Only who stands still himself is unwell. An actor that waits for a lease, or a learner that waits for fragments, turns
its loop and is well: were they not, a learner that pauses would have every actor of the cluster restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Pulse:
    """Beaten at every turn of the loop, asked from any thread. ``timeout_s``: the longest a turn may take."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s, self._clock = timeout_s, clock
        self._beat_s = clock()

    def beat(self) -> None:
        self._beat_s = self._clock()

    def beats(self) -> bool:
        """Whether the last turn ended, or the role began, less than ``timeout_s`` ago."""
        return self._clock() - self._beat_s < self._timeout_s
