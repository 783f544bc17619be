"""The learner: fragments in, versions out.

    intake.take -> admit (stale?) -> experience -> round ready? -> update ... update -> publish -> checkpoint due?

``step()`` does one turn and returns whether a version was made; the serial runner, the process and the tests call the
same one. Everything needed to go on after a SIGKILL is in :meth:`Learner.snapshot`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.algorithms.base import Algorithm, State
from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport import Received, Source
from headrace.common.types import Trajectory, Weights
from headrace.common.weights.base import Progress, Publisher
from headrace.learner.experience import ExperienceBuffer, Round, make_buffer, per_version
from headrace.learner.intake import Intake, Marks

#: A learner that waits tells the parameter server so this often: a lease lost with its actor is missed only then.
_TELL_EVERY_S = 1.0
#: How long a learner that comes back reads what was put meanwhile before it begins with the oldest.
_CATCH_UP_S = 30.0


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
    rejected: int = 0
    stale: int = 0
    samples: int = 0
    next_lease: int = 0
    trained_s: float = 0.0


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


class Learner:
    """Owns the algorithm and its experience. Raises what a dead carrier, a fence or the algorithm raises."""

    def __init__(
        self,
        identity: Identity,
        algorithm: Algorithm,
        source: Source,
        publisher: Publisher,
        check: Callable[[Trajectory], None],
        metrics: Metrics,
        *,
        seed: int,
        max_staleness: int,
        total_steps: int,
        queue_bytes: int,
        resume: Mapping[str, State] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.identity, self.algorithm, self.metrics = identity, algorithm, metrics
        self._source, self._publisher = source, publisher
        self._total_steps, self._max_staleness = total_steps, max_staleness
        self._per_version = per_version(algorithm.experience)
        self.experience: ExperienceBuffer = make_buffer(algorithm.experience, seed)
        self.counters, self._marks, self._positions = Counters(), Marks(), Positions()
        if resume is not None and info is not None:
            self._restore(resume, info)
        self._rejected_before = self.counters.rejected
        self._held: dict[int, Received] = {}
        #: False while a version is being made, and for good if that fails: a snapshot then would be half of one.
        self.whole = True
        self._stepped_at: float | None = None  # what the caller does between steps (rows, checkpoints) counts as well
        self._told_s = time.monotonic()
        self._intake = Intake(source, check, metrics, queue_bytes, self._marks.copy())
        if resume is not None:
            self._intake.catch_up(_CATCH_UP_S)
        self._publish()

    @property
    def done(self) -> bool:
        return self.counters.env_steps >= self._total_steps

    def step(self, timeout_s: float) -> TrainResult | None:
        """One turn: take a fragment if one comes within ``timeout_s``; make a version if enough are here."""
        began = time.perf_counter() if self._stepped_at is None else self._stepped_at
        with self.metrics.phase("learner_phase_seconds_total", "wait"):
            received = self._intake.take(timeout_s)
        if received is not None:
            self._admit(received)
        self._tell_if_due()
        with self.metrics.phase("learner_phase_seconds_total", "assemble"):
            round_ = self.experience.next_round()
        trained = None if round_ is None else self._train(round_)
        self._stepped_at = time.perf_counter()
        self.counters.trained_s += self._stepped_at - began
        return trained

    def backlog(self) -> int:
        return self._intake.backlog()

    def snapshot(self) -> tuple[dict[str, State], dict[str, Any]]:
        """Parts and info for a checkpoint: all that :class:`Learner` needs to go on as if it had not stopped."""
        parts = {"algorithm": self.algorithm.state(), "experience": self.experience.state()}
        info = {
            "run_id": self.identity.run_id,
            "learner_epoch": self.identity.learner_epoch,
            "counters": vars(self.counters).copy(),
            "positions": {str(p): offset for p, offset in self._resume_from().items()},
            "marks": self._marks.to_json(),
        }
        return parts, info

    def commit(self) -> None:
        """After a durable checkpoint: show the progress where lag is watched."""
        self._source.commit(self._resume_from())

    def close(self) -> None:
        self._intake.close()
        self._publisher.close()

    def _resume_from(self) -> dict[int, int]:
        return self._positions.resume_from(self._intake.waiting())

    # --- inside a step ---------------------------------------------------------------------------------------------

    def _admit(self, received: Received) -> None:
        """Keep a fragment, unless it is older than the bound: every fragment kept is trained on in the version that
        comes next."""
        trajectory = received.trajectory
        self._positions.taken(received)
        self.counters.next_lease = max(self.counters.next_lease, trajectory.lease + 1)
        if self.counters.version - trajectory.policy_version > self._max_staleness:
            self.metrics.inc("learner_rejected_total", reason="stale")
            self.counters.stale += 1
            self._positions.used(received)
            self._marks.apply(trajectory)
            return
        self._held[id(trajectory)] = received
        self.experience.add(trajectory)
        self.metrics.inc("learner_fragments_total")

    def _train(self, round_: Round) -> TrainResult | None:
        self.whole, counters, metrics = False, self.counters, {}
        staleness = [counters.version - t.policy_version for t in round_.fragments]
        self.algorithm.progress(min(1.0, counters.env_steps / self._total_steps))
        with self.metrics.phase("learner_phase_seconds_total", "update"):
            for batch in round_.batches:
                result = self.algorithm.update(batch)
                round_.report(result.priorities)
                metrics = dict(result.metrics)
                counters.samples += batch.steps
        for trajectory in round_.fragments:
            self._positions.used(self._held.pop(id(trajectory)))
            self._marks.apply(trajectory)
            counters.env_steps += trajectory.steps
            counters.episodes += len(trajectory.episodes)
        counters.version += 1
        counters.fragments += len(round_.fragments)
        self.whole = True
        self._publish()
        return TrainResult(round_.fragments, staleness, metrics)

    def _tell_if_due(self) -> None:
        """A refused fragment has spent a lease: admit another in its place, or the learner would starve. And say now
        and then that it waits, so that a lease whose fragment never comes is given up."""
        self.counters.rejected = self._rejected_before + self._intake.rejected
        refused = self.counters.rejected + self.counters.stale
        if refused > self._refused_told or time.monotonic() - self._told_s > _TELL_EVERY_S:
            self._publisher.admit(self._progress())

    def _publish(self) -> None:
        tensors, scalars = self.algorithm.weights()
        who = self.identity
        with self.metrics.phase("learner_phase_seconds_total", "publish"):
            self._publisher.publish(
                Weights(who.run_id, who.learner_epoch, self.counters.version, tensors, scalars), self._progress()
            )
        self.metrics.set("learner_policy_version", self.counters.version)

    def _progress(self) -> Progress:
        counters = self.counters
        spent = counters.rejected + counters.stale
        self._refused_told, self._told_s = spent, time.monotonic()
        admit_until = (counters.version + 1 + self._max_staleness) * self._per_version + spent
        backlog = len(self._held) + self._intake.backlog()
        return Progress(admit_until, counters.next_lease, counters.fragments + spent, backlog, complete=True)

    def _restore(self, parts: Mapping[str, State], info: Mapping[str, Any]) -> None:
        if info["run_id"] != self.identity.run_id:
            raise UsageError(f"checkpoint of run {info['run_id']}, this run is {self.identity.run_id}")
        self.algorithm.restore(parts["algorithm"])
        self.experience.restore(parts["experience"])
        self.counters = Counters(**info["counters"])
        self._marks = Marks.from_json(info["marks"])
        self._positions = Positions({int(p): offset for p, offset in info["positions"].items()})
        self._source.seek(self._positions.resume_from())
