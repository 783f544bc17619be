"""When a role stops: at SIGINT, SIGTERM or SIGHUP (finish the step, flush, checkpoint, exit 0), once its supervisor has
gone, or for a reason it found itself."""

from __future__ import annotations

import signal
from types import FrameType

from headrace.launch.lifeline import Attached

#: How long a role may take to end once its supervisor is gone. (The learner has more, for a checkpoint.)
_GRACE_S = 1.0


class Stop:
    """Ask ``stop()`` between steps. A second signal is not special: every step has a deadline.

    ``supervised``: what ties the role to its supervisor, None where nobody supervises it.
    """

    def __init__(self, supervised: Attached | None = None) -> None:
        self._asked, self._supervised = False, supervised
        #: Why the role ends itself, for people; such an end is a failure.
        self.reason = ""
        self.give(_GRACE_S)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored: nohup
                signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        return self._asked or bool(self.reason) or (self._supervised is not None and self._supervised.gone.is_set())

    @property
    def asked(self) -> bool:
        """A signal came (rather than the supervisor's death)."""
        return self._asked

    def because(self, reason: str) -> None:
        """End the role at its next step."""
        self.reason = self.reason or reason

    def give(self, grace_s: float) -> None:
        """From now on the role has so much to save that it may take ``grace_s`` to end without a supervisor."""
        if self._supervised is not None:
            self._supervised.grace_s = grace_s

    def over(self) -> None:
        """What had to be saved is: from now on a signal ends the process at once."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
