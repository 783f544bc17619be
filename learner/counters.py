"""What a learner counts, and what it knows of where it is: the parts of :class:`headrace.learner.loop.Learner` that a
checkpoint keeps and others look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.common.transport import Received
from headrace.common.types import Trajectory


@dataclass(frozen=True)
class Identity:
    """Which run, and which life of its learner."""

    run_id: str
    learner_epoch: int


@dataclass
class Counters:
    """What a resumed learner goes on counting."""

    version: int = 0
    env_steps: int = 0
    episodes: int = 0
    fragments: int = 0
    samples: int = 0
    trained_s: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)
    """Records refused, by reason, each once over all lives of the learner."""


@dataclass(frozen=True)
class TrainResult:
    """What one version was made of, for whoever logs (learner/report.py)."""

    fragments: Sequence[Trajectory]
    staleness: Sequence[int]
    metrics: Mapping[str, float]


@dataclass
class Positions:
    """Where to read on after a restart: per partition, the lowest record that came and was not trained on yet."""

    applied: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, list[int]] = field(default_factory=dict)

    def taken(self, received: Received) -> None:
        self.waiting.setdefault(received.partition, []).append(received.next_offset)

    def used(self, received: Received) -> None:
        self.waiting[received.partition].remove(received.next_offset)
        self.applied[received.partition] = max(received.next_offset, self.applied.get(received.partition, 0))

    def resume_from(self, queued: Sequence[Received] = ()) -> dict[int, int]:
        """Next offset per partition; ``queued`` are those that came and were not taken yet."""
        waiting = {p: list(offsets) for p, offsets in self.waiting.items() if offsets}
        for received in queued:
            waiting.setdefault(received.partition, []).append(received.next_offset)
        return {**self.applied, **{p: min(offsets) - 1 for p, offsets in waiting.items()}}
