"""Publisher and subscriber in one process, without sockets: for the serial runner and for tests.

weights = InProcess(Store(Ledger(workers=2)))
weights.publish(version, progress)
lease = weights.subscriber("run", actor_id=0, incarnation=1).next(have_version=-1, timeout_s=0)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from headrace.common.types import Array, Lease, Weights
from headrace.common.weights.base import REPORTED_LEASES, Progress
from headrace.paramserver.store import LeaseRequest, Store, Version, Writer


class InProcess:
    """A :class:`Publisher` right on the store, and the maker of its subscribers. For one thread."""

    def __init__(self, store: Store[Weights], clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._writer: Writer | None = None

    def publish(self, weights: Weights, progress: Progress) -> None:
        self._writer = Writer(weights.run_id, weights.learner_epoch, 0)
        kept = replace(weights, tensors=MappingProxyType({n: _kept(a) for n, a in weights.tensors.items()}))
        version = Version(weights.learner_epoch, weights.version, b"", kept)
        self._store.publish(self._writer, version, progress, None, self._clock())

    def admit(self, progress: Progress) -> None:
        assert self._writer is not None, "publish first"
        self._store.admit(self._writer, progress, self._clock())

    def subscriber(self, run_id: str, actor_id: int, incarnation: int) -> InProcessSubscriber:
        return InProcessSubscriber(self._store, self._clock, run_id, actor_id, incarnation)

    def close(self) -> None:
        """Nothing to release."""


class InProcessSubscriber:
    """A :class:`Subscriber` that never waits: nobody else could free a lease meanwhile."""

    def __init__(
        self, store: Store[Weights], clock: Callable[[], float], run_id: str, actor_id: int, incarnation: int
    ) -> None:
        self._store, self._clock = store, clock
        self._run_id, self._actor_id, self._incarnation = run_id, actor_id, incarnation
        self._received: deque[int] = deque(maxlen=REPORTED_LEASES)
        self._epoch = -1

    def next(self, have_version: int, timeout_s: float) -> Lease | None:
        ask = LeaseRequest(
            self._run_id, self._actor_id, self._incarnation, tuple(self._received), (self._epoch, have_version)
        )  # fmt: skip
        grant = self._store.next(ask, self._clock())
        if grant is None:
            return None
        self._received.append(grant.lease)
        self._epoch = grant.learner_epoch
        return Lease(grant.lease, grant.learner_epoch, grant.version.content if grant.version else None)

    def close(self) -> None:
        """Nothing to release."""


def _kept(array: Array) -> Array:
    """A copy nobody can change: the learner goes on writing into its own."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy
