"""The learner: fragments in, versions out.

    intake.take -> admit (stale?) -> experience -> round ready? -> update ... update -> publish -> checkpoint due?

``step()`` does one turn and returns whether a version was made; the serial runner, the process and the tests call the
same one. Everything needed to go on after a SIGKILL is in :meth:`Learner.snapshot`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from headrace.algorithms.base import Algorithm, State
from headrace.common.errors import Rejected, UsageError
from headrace.common.lease_set import LeaseSet
from headrace.common.metrics import Metrics
from headrace.common.transport import Received, Source
from headrace.common.types import Trajectory, Weights
from headrace.common.weights.base import Progress, Publisher
from headrace.learner.counters import Counters, Identity, Positions, TrainResult
from headrace.learner.experience import ExperienceBuffer, Round, make_buffer, per_version
from headrace.learner.intake import MAX_EARLY, Intake
from headrace.learner.leases import Leases

#: A learner that waits tells the parameter server so this often: a lease lost with its actor is missed only then.
_TELL_EVERY_S = 1.0
#: What the carrier said before that does not prove any more that nothing waits in it.
_KNOWN_S = 2.5
#: How long a learner that comes back reads what was put meanwhile before it begins with the oldest.
_CATCH_UP_S = 30.0


class Learner:
    """Owns the algorithm and its experience. ``start`` it, then ``step`` until ``done``. Raises what a dead carrier, a
    fence or the algorithm raises."""

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
        self._at_once = (1 + max_staleness) * self._per_version
        #: Scalars of the acting half in the newest version: epsilon.
        self.scalars: Mapping[str, float] = {}
        self.experience: ExperienceBuffer = make_buffer(algorithm.experience, algorithm.schema, seed)
        self.counters, self._spent, self._positions = Counters(), LeaseSet(), Positions()
        self._issued, self._examined = 0, dict[int, int]()
        self.fresh = resume is None or info is None
        if resume is not None and info is not None:
            self._restore(resume, info)
        else:
            self._positions.applied.update(source.position())
        self._former_at_most: int | None = None
        self._held: dict[int, Received] = {}
        #: False while a version is being made, and for good if that fails: a snapshot then would be half of one.
        self.whole = True
        self._stepped_at: float | None = None  # what the caller does between steps (rows, checkpoints) counts as well
        self._told_s = time.monotonic()
        leases = Leases(identity.learner_epoch, self._issued, self._spent.copy())
        self._intake = Intake(
            source,
            self._checked(check, leases),
            leases,
            publisher.ask,
            metrics,
            queue_bytes,
            self._examined,
        )
        publisher.listen(self._intake.hear)

    def start(self) -> None:
        """Publish the first version of this life, take up what was put before it, and only then let more begin: what
        waits in the log is not collected again."""
        self._publish(self._progress(ahead=0))
        self._intake.catch_up(_CATCH_UP_S)
        self._publisher.admit(self._progress())

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

    def finish(self, timeout_s: float) -> None:
        """Tell everybody that the run has come to its end. Raises :class:`TransportError` when nobody heard in time."""
        self._publisher.admit(replace(self._progress(), finished=True))
        self._publisher.flush(timeout_s)

    def snapshot(self) -> tuple[dict[str, State], dict[str, Any]]:
        """Parts and info for a checkpoint: all that :class:`Learner` needs to go on as if it had not stopped."""
        self._count_refused()
        parts = {"algorithm": self.algorithm.state(), "experience": self.experience.state()}
        info = {
            "run_id": self.identity.run_id,
            "learner_epoch": self.identity.learner_epoch,
            "counters": asdict(self.counters),
            "positions": {str(p): offset for p, offset in self._resume_from().items()},
            "log_id": self._source.log_id,
            "examined": {str(p): offset for p, offset in self._intake.examined.items()},
            "spent": self._spent.runs,
            "issued": self._intake.account().issued,
        }
        return parts, info

    def commit(self) -> None:
        """After a durable checkpoint: show the progress where lag is watched."""
        self._source.commit(self._resume_from())

    def close(self, for_good: bool = True) -> None:
        """``for_good``: no learner will go on with this run, so actors may end."""
        self._intake.close(for_good)
        self._publisher.close()

    def _resume_from(self) -> dict[int, int]:
        return self._positions.resume_from(self._intake.waiting())

    # --- inside a step ---------------------------------------------------------------------------------------------

    def _checked(self, check: Callable[[Trajectory], None], leases: Leases) -> Callable[[Trajectory], None]:
        """What the config says of a fragment, and what only this learner knows: which versions there are, and how many
        steps anybody can have taken."""

        def checked(trajectory: Trajectory) -> None:
            check(trajectory)
            fragments = leases.spent_total + MAX_EARLY + self._at_once
            if any(episode.length > fragments * trajectory.T for episode in trajectory.episodes):
                raise Rejected("range", f"an episode is longer than the run, {fragments * trajectory.T} steps at most")
            ours, version = trajectory.learner_epoch == self.identity.learner_epoch, self.counters.version
            if ours and trajectory.policy_version > version:
                raise Rejected("range", f"policy version {trajectory.policy_version}; the newest is {version}")

        return checked

    def _staleness(self, trajectory: Trajectory) -> int:
        """In versions. What a former learner made after the checkpoint is gone, but not what it had collected: as long
        as such fragments alone are trained on, versions are made again, and they are no newer than those. From the
        first fragment of this life on they are no newer than the version of then."""
        ours, version = trajectory.learner_epoch == self.identity.learner_epoch, self.counters.version
        if ours and self._former_at_most is None:
            self._former_at_most = version
        newest = version if ours or self._former_at_most is None else self._former_at_most
        return version - min(trajectory.policy_version, newest)

    def _admit(self, received: Received) -> None:
        """Keep a fragment, unless it is older than the bound: every fragment kept is trained on in the version that
        comes next."""
        trajectory = received.trajectory
        self._positions.taken(received)
        if self._staleness(trajectory) > self._max_staleness:
            self.metrics.inc("learner_rejected_total", reason="stale")
            self.counters.rejected["stale"] = self.counters.rejected.get("stale", 0) + 1
            self._positions.used(received)
            self._spent.add(trajectory.lease)
            return
        self._held[id(trajectory)] = received
        self.experience.add(trajectory)
        self.metrics.inc("learner_fragments_total")

    def _count_refused(self) -> None:
        for refused in self._intake.take_refused():
            self.counters.rejected[refused.reason] = self.counters.rejected.get(refused.reason, 0) + 1
            if refused.lease is not None:
                self._spent.add(refused.lease)

    def _train(self, round_: Round) -> TrainResult | None:
        self.whole, counters, metrics = False, self.counters, {}
        staleness = [self._staleness(t) for t in round_.fragments]
        self.algorithm.progress(min(1.0, counters.env_steps / self._total_steps))
        with self.metrics.phase("learner_phase_seconds_total", "update"):
            for batch in round_.batches:
                result = self.algorithm.update(batch)
                round_.report(result.priorities)
                metrics = dict(result.metrics)
                counters.samples += batch.steps
                self.metrics.inc("learner_samples_total", batch.steps)
        for trajectory in round_.fragments:
            self._positions.used(self._held.pop(id(trajectory)))
            self._spent.add(trajectory.lease)
            counters.env_steps += trajectory.steps
            counters.episodes += len(trajectory.episodes)
        counters.version += 1
        counters.fragments += len(round_.fragments)
        self.whole = True
        self._publish(self._progress())
        return TrainResult(round_.fragments, staleness, metrics)

    def _tell_if_due(self) -> None:
        """A refused fragment has spent its lease: say so, or nobody would collect another in its place. And say now
        and then how much waits, so that a lease whose fragment never comes is given up."""
        self._count_refused()
        refused = sum(self.counters.rejected.values())
        if refused > self._refused_told or time.monotonic() - self._told_s > _TELL_EVERY_S:
            self._publisher.admit(self._progress())

    def _publish(self, progress: Progress) -> None:
        tensors, self.scalars = self.algorithm.weights()
        who, now = self.identity, self.counters
        made = Weights(who.run_id, who.learner_epoch, now.version, tensors, self.scalars, now.env_steps, now.trained_s)
        with self.metrics.phase("learner_phase_seconds_total", "publish"):
            self._publisher.publish(made, progress)
        self.metrics.set("learner_policy_version", self.counters.version)

    def _progress(self, ahead: int | None = None) -> Progress:
        """``ahead``: versions for which fragments may begin; else as many as the staleness bound allows."""
        ahead = 1 + self._max_staleness if ahead is None else ahead
        counters, account = self.counters, self._intake.account()
        self._refused_told, self._told_s = sum(counters.rejected.values()), time.monotonic()
        self.metrics.set("learner_queue_fragments", account.queued + len(self._held))
        return Progress(
            admit_until=(counters.version + ahead) * self._per_version,
            next_lease=account.issued,
            accepted=counters.fragments + len(self._held) + account.queued,
            spent=account.spent,
            backlog=account.waiting,
            complete=account.waiting_age_s < _KNOWN_S,
        )

    def _restore(self, parts: Mapping[str, State], info: Mapping[str, Any]) -> None:
        if info["run_id"] != self.identity.run_id:
            raise UsageError(f"checkpoint of run {info['run_id']}, this run is {self.identity.run_id}")
        self.algorithm.restore(parts["algorithm"])
        self.experience.restore(parts["experience"])
        self.counters = Counters(**info["counters"])
        self._spent, self._issued = LeaseSet(tuple(run) for run in info["spent"]), int(info["issued"])
        self._examined = {int(p): offset for p, offset in info["examined"].items()}
        self._positions = Positions({int(p): offset for p, offset in info["positions"].items()})
        self._source.seek(self._positions.resume_from(), info["log_id"])
