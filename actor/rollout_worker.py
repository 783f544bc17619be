"""A rollout worker: the lease to begin each, the stamp on each, the hand-over to the carrier.

    a lease to go on? -> newer weights? -> roll out -> put          (one ``step()``)

What "roll out" means is a :class:`Rollout`'s business: fragments of fixed length (env_rollout.py) or whole groups of
episodes (group_rollout.py).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from headrace.actor.fitness import require_fit
from headrace.algorithms.base import Policy
from headrace.common.errors import EnvironmentFailed, HeadraceError, Rejected, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport import Sink
from headrace.common.types import Array, Episode, Lease, Trajectory
from headrace.common.weights.base import Subscriber
from headrace.tasks import EnvBatch

#: How long a carrier that is away (a broker being restarted, a learner being resumed) is waited for.
_ACKNOWLEDGED_S = 120.0
#: Times in a row that failed environments are made anew before the actor gives up.
REBUILDS = 3


@dataclass
class Timings:
    """Seconds spent per phase within one fragment, added to the metrics once (a counter per step would cost more)."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


@dataclass(frozen=True)
class Fragment:
    """What a rollout made: T steps of B environments, and the episodes that ended inside."""

    T: int
    B: int
    arrays: Mapping[str, Array]
    episodes: tuple[Episode, ...]


class Rollout(Protocol):
    """Collects one fragment with the policy as it is now."""

    policy: Policy

    @property
    def envs(self) -> EnvBatch: ...

    def collect(self, lease: int, timings: Timings) -> Fragment: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Identity:
    """Who collects: see :class:`headrace.common.types.Trajectory` for each field."""

    run_id: str
    actor_id: int
    incarnation: int
    task_id: str
    schema_hash: str


class RolloutWorker:
    """Joins a rollout to the weights it acts with and the carrier it puts to. ``step`` until told to stop.

    ``check``: the learner's, raises :class:`Rejected`. ``rebuild``: a rollout with new environments and random numbers,
    for when an environment failed; None where nothing may be begun anew.
    """

    def __init__(
        self,
        identity: Identity,
        rollout: Rollout,
        subscriber: Subscriber,
        sink: Sink,
        metrics: Metrics,
        *,
        check: Callable[[Trajectory], None],
        rebuild: Callable[[], Rollout] | None = None,
    ) -> None:
        self._identity, self._rollout, self._subscriber, self._sink = identity, rollout, subscriber, sink
        self._metrics, self._check, self._rebuild = metrics, check, rebuild
        self._version, self._seq, self._waited_s = -1, 0, 0.0

    def step(self, timeout_s: float) -> bool:
        """Collect and put one fragment; False when no lease came within ``timeout_s``."""
        timings = Timings()
        with timings.phase("lease"):
            lease = self._subscriber.next(self._version, timeout_s)
        self._waited_s += timings.seconds["lease"]
        if lease is None:
            self._report(timings)
            return False
        if lease.weights is not None:
            self._rollout.policy.load(lease.weights)
            self._version = lease.weights.version
        self._metrics.observe("actor_lease_wait_seconds", self._waited_s)
        self._waited_s = 0.0
        trajectory = self._collect(lease, timings)
        with timings.phase("put"):
            # A newer fragment must not overtake this one on the way: it is there before the next lease is asked for.
            self._put(trajectory)
            self._sink.flush(_ACKNOWLEDGED_S)
        self._subscriber.delivered()
        self._seq += 1
        self._report(timings)
        self._metrics.inc("actor_fragments_total")
        self._metrics.inc("actor_env_steps_total", trajectory.steps)
        self._metrics.inc("actor_episodes_total", len(trajectory.episodes))
        for episode in trajectory.episodes:
            self._metrics.observe("actor_episode_steps", episode.length)
        for term, mean in self._rollout.envs.reward_terms().items():
            self._metrics.set("actor_reward_mean", mean, term=term)
        self._metrics.set("actor_policy_version", self._version)
        return True

    @property
    def envs(self) -> EnvBatch:
        """The environments as they are now."""
        return self._rollout.envs

    def close(self) -> None:
        with contextlib.suppress(EnvironmentFailed):  # what matters is in the carrier
            self._rollout.close()
        self._subscriber.close()

    def _collect(self, lease: Lease, timings: Timings) -> Trajectory:
        """A fragment fit to be sent. One in which an environment failed is given up whole, so that nothing false
        is trained on, and collected anew, under the same lease, in new environments."""
        rebuilds = 0
        while True:
            try:
                fragment = self._rollout.collect(lease.number, timings)
                trajectory = self._stamp(fragment, lease.number, lease.learner_epoch)
                require_fit(trajectory, self._identity.task_id, self._check)
                return trajectory
            except EnvironmentFailed as failure:
                said = f"worker {self._identity.actor_id}: {failure}"
                if self._rebuild is None:
                    raise EnvironmentFailed(f"{said}; in lockstep (max_staleness 0) nothing is begun anew") from failure
                if rebuilds == REBUILDS:
                    raise EnvironmentFailed(f"{said}; making it anew {REBUILDS} times did not help") from failure
            rebuilds += 1
            print(f"actor: {said}; made anew ({rebuilds} of {REBUILDS})", file=sys.stderr, flush=True)
            self._make_anew(self._rebuild)

    def _make_anew(self, rebuild: Callable[[], Rollout]) -> None:
        self._metrics.inc("actor_env_rebuilds_total")
        with contextlib.suppress(EnvironmentFailed):
            self._rollout.close()
        try:
            fresh = rebuild()
        except UsageError as error:  # it could be made once: not the config's fault
            raise EnvironmentFailed(f"worker {self._identity.actor_id}: {error}") from error
        fresh.policy, self._rollout = self._rollout.policy, fresh

    def _put(self, trajectory: Trajectory) -> None:
        try:
            self._sink.put(trajectory)
        except Rejected as refusal:
            raise HeadraceError(
                f"worker {self._identity.actor_id}: {refusal}; raise transport.record_bytes, or make fragments smaller"
            ) from refusal

    def _stamp(self, fragment: Fragment, lease: int, learner_epoch: int) -> Trajectory:
        who = self._identity
        return Trajectory(
            who.run_id, learner_epoch, who.actor_id, who.incarnation, self._seq, self._version, lease, who.task_id,
            who.schema_hash, fragment.T, fragment.B, fragment.arrays, fragment.episodes,
        )  # fmt: skip

    def _report(self, timings: Timings) -> None:
        for phase, seconds in timings.seconds.items():
            self._metrics.inc("actor_phase_seconds_total", seconds, phase=phase)
