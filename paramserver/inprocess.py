"""Publisher and subscriber in one process, without sockets: for the serial runner and for tests.

weights = InProcess(Store(Ledger(workers=2)))
weights.publish(version, progress)
lease = weights.subscriber("run", actor_id=0, incarnation=1).next(have_version=-1, timeout_s=0)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from headrace.common.types import Array, Lease, Weights
from headrace.common.weights.base import REPORTED_LEASES, LedgerState, Progress
from headrace.paramserver.store import LeaseRequest, Store, Version, Writer


class InProcess:
    """A :class:`Publisher` right on the store, and the maker of its subscribers. ``ask`` may come from any thread."""

    def __init__(self, store: Store[Weights], clock: Callable[[], float] = time.monotonic) -> None:
        self.store, self.clock, self.lock = store, clock, threading.Lock()
        self._writer: Writer | None = None
        self._hear: Callable[[LedgerState, int], None] = lambda state, ticket: None
        self._tickets = 0

    def publish(self, weights: Weights, progress: Progress) -> None:
        writer = self._writer = Writer(weights.run_id, weights.learner_epoch, 0)
        kept = replace(weights, tensors=MappingProxyType({n: _kept(a) for n, a in weights.tensors.items()}))
        version = Version(weights.learner_epoch, weights.version, b"", kept)
        with self.lock:
            self.store.publish(writer, version, progress, None, self.clock())
        self.ask()

    def admit(self, progress: Progress) -> None:
        assert self._writer is not None, "publish first"
        with self.lock:
            self.store.admit(self._writer, progress, self.clock())
        self.ask()

    def flush(self, timeout_s: float) -> None:
        """It always has."""

    def listen(self, hear: Callable[[LedgerState, int], None]) -> None:
        self._hear = hear

    def ask(self) -> int:
        """The answer has been heard when this returns."""
        with self.lock:
            self._tickets += 1
            state, ticket = self.store.ledger.state(), self._tickets
        self._hear(state, ticket)  # not under the lock: who listens has one too
        return ticket

    def subscriber(self, run_id: str, actor_id: int, incarnation: int) -> InProcessSubscriber:
        return InProcessSubscriber(self, run_id, actor_id, incarnation)

    def close(self) -> None:
        """Nothing to release."""


class InProcessSubscriber:
    """A :class:`Subscriber` that never waits: nobody else could free a lease meanwhile."""

    def __init__(self, server: InProcess, run_id: str, actor_id: int, incarnation: int) -> None:
        self._server, self._run_id = server, run_id
        self._actor_id, self._incarnation = actor_id, incarnation
        self._received: deque[int] = deque(maxlen=REPORTED_LEASES)
        self._lease = self._epoch = -1

    def next(self, have_version: int, timeout_s: float) -> Lease | None:
        have = (self._epoch, have_version)
        ask = LeaseRequest(self._run_id, self._actor_id, self._incarnation, tuple(self._received), have)
        with self._server.lock:
            grant = self._server.store.next(ask, self._server.clock())
        if grant is None:
            return None
        self._lease, self._epoch = grant.lease, grant.learner_epoch
        return Lease(grant.lease, grant.learner_epoch, grant.version.content if grant.version else None)

    def delivered(self) -> None:
        self._received.append(self._lease)

    def close(self) -> None:
        """Nothing to release."""


def _kept(array: Array) -> Array:
    """A copy nobody can change: the learner goes on writing into its own."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy
