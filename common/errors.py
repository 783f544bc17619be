"""Every error that crosses a border between our packages.

    HeadraceError                 anything we raise on purpose
    ├── UsageError                the person can mend it: one line, exit code 2
    │   └── LogLost               the log that a position belongs to is gone: deleted, made anew, or cut
    ├── TransportError            a carrier failed and retrying did not help
    │   └── Closed                the other side, or we ourselves, closed it
    ├── Finished                  the learner has come to its end: nothing more to collect or to evaluate
    ├── Rejected                  a record that must not reach the optimiser; carries the reason it is counted under
    ├── EnvironmentFailed         an environment raised, hung, or showed what nobody may train on
    ├── CheckpointFailed          one checkpoint could not be written; the older ones are intact
    └── Fenced                    a newer learner epoch exists: this process must stop writing

Foreign exceptions are translated to these in the file that owns the foreign library, with their cause kept.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(HeadraceError):
    """Bad usage or configuration: says what, where, and what would be right. Becomes exit code 2."""


class LogLost(UsageError):
    """The log that a position belongs to is not there any more: its topic was deleted or made anew, or lost records."""


class NoAnswer(UsageError):
    """Nobody answers at an address that may well be right: one who knows that somebody did may wait and try again."""


class TransportError(HeadraceError):
    """A carrier of trajectories or weights failed for good."""


class Closed(TransportError):
    """The carrier is closed; nothing more can be put or got."""


class Finished(HeadraceError):
    """The run has come to its end: who collects or evaluates may go home."""


class Fenced(HeadraceError):
    """A learner with a newer epoch has taken over."""


class EnvironmentFailed(HeadraceError):
    """An environment raised, hung, or showed what nobody may train on. Says which one, and what it did."""


class CheckpointFailed(HeadraceError):
    """A checkpoint could not be written (disk full, say). The older ones are intact; the caller may try again later."""


#: Reasons a record may be rejected under; the label values of ``headrace_learner_rejected_total``.
REJECT_REASONS = (
    "malformed",
    "size",
    "crc",
    "version",
    "run",
    "schema",
    "shape",
    "dtype",
    "nan",
    "range",
    "mask",
    "empty",
    "lease",
    "stale",
    "duplicate",
)


class Rejected(HeadraceError):
    """A record is refused. ``reason`` is one of :data:`REJECT_REASONS`; the message says what was wrong."""

    def __init__(self, reason: str, message: str) -> None:
        assert reason in REJECT_REASONS, reason
        super().__init__(message)
        self.reason = reason
