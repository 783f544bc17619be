"""A rollout worker: the lease to begin each, the stamp on each, the hand-over to the carrier.

    a lease to go on? -> newer weights? -> roll out -> put          (one ``step()``)

What "roll out" means is a :class:`Rollout`'s business: fragments of fixed length (env_rollout.py) or whole groups of
episodes (group_rollout.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from headrace.algorithms.base import Policy
from headrace.common.metrics import Metrics
from headrace.common.transport import Sink
from headrace.common.types import Array, Episode, Trajectory
from headrace.common.weights.base import Subscriber

#: How long a carrier that is away (a broker being restarted, a learner being resumed) is waited for.
_ACKNOWLEDGED_S = 120.0


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
    """Joins a rollout to the weights it acts with and the carrier it puts to. ``step`` until told to stop."""

    def __init__(
        self, identity: Identity, rollout: Rollout, subscriber: Subscriber, sink: Sink, metrics: Metrics
    ) -> None:
        self._identity, self._rollout, self._subscriber, self._sink = identity, rollout, subscriber, sink
        self._metrics = metrics
        self._version, self._seq = -1, 0

    def step(self, timeout_s: float) -> bool:
        """Collect and put one fragment; False when no lease came within ``timeout_s``."""
        timings = Timings()
        with timings.phase("lease"):
            lease = self._subscriber.next(self._version, timeout_s)
        if lease is None:
            self._report(timings)
            return False
        if lease.weights is not None:
            self._rollout.policy.load(lease.weights)
            self._version = lease.weights.version
        fragment = self._rollout.collect(lease.number, timings)
        trajectory = self._stamp(fragment, lease.number, lease.learner_epoch)
        with timings.phase("put"):
            # A newer fragment must not overtake this one on the way: it is there before the next lease is asked for.
            self._sink.put(trajectory)
            self._sink.flush(_ACKNOWLEDGED_S)
        self._subscriber.delivered()
        self._seq += 1
        self._report(timings)
        self._metrics.inc("actor_fragments_total")
        self._metrics.inc("actor_env_steps_total", trajectory.steps)
        self._metrics.inc("actor_episodes_total", len(fragment.episodes))
        self._metrics.set("actor_policy_version", self._version)
        return True

    def close(self) -> None:
        self._rollout.close()
        self._subscriber.close()

    def _stamp(self, fragment: Fragment, lease: int, learner_epoch: int) -> Trajectory:
        who = self._identity
        return Trajectory(
            who.run_id, learner_epoch, who.actor_id, who.incarnation, self._seq, self._version, lease, who.task_id,
            who.schema_hash, fragment.T, fragment.B, fragment.arrays, fragment.episodes,
        )  # fmt: skip

    def _report(self, timings: Timings) -> None:
        for phase, seconds in timings.seconds.items():
            self._metrics.inc("actor_phase_seconds_total", seconds, phase=phase)
