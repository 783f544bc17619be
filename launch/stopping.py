"""When a role stops: SIGINT or SIGTERM (finish the step, flush, checkpoint, exit 0), or its supervisor has gone."""

from __future__ import annotations

import os
import signal
from types import FrameType


class Stop:
    """Ask ``stop()`` between steps. A second signal is not special: every step has a deadline."""

    def __init__(self, supervised: bool = False) -> None:
        self._asked = False
        self._parent = os.getppid() if supervised else None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        return self._asked or (self._parent is not None and os.getppid() != self._parent)

    @property
    def asked(self) -> bool:
        """A signal came (rather than the supervisor's death)."""
        return self._asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
