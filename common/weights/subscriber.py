"""An actor's end of the gRPC carrier: a lease to collect one more fragment, with newer weights where there are any."""

from __future__ import annotations

from collections import deque

from headrace.common.errors import Finished, Rejected
from headrace.common.metrics import Metrics
from headrace.common.types import Lease
from headrace.common.waiting import Waiting
from headrace.common.weights.base import REPORTED_LEASES
from headrace.common.weights.heart import Heart
from headrace.common.weights.reader import Reader
from headrace.common.weights.tls import Tls
from headrace.common.weights.tokens import Token
from headrace.common.wire import paramserver_pb2 as pb


class GrpcSubscriber(Reader):
    """A :class:`headrace.common.weights.base.Subscriber`: one rollout worker, one life of its process."""

    def __init__(
        self,
        address: str,
        run_id: str,
        actor_id: int,
        incarnation: int,
        token: str | Token,
        metrics: Metrics,
        *,
        tls: Tls | None = None,
        max_weights_bytes: int = 2 << 30,
        away: Waiting | None = None,
    ) -> None:
        super().__init__(address, run_id, token, metrics, tls=tls, max_weights_bytes=max_weights_bytes, away=away)
        self._actor_id, self._incarnation = actor_id, incarnation
        self._received: deque[int] = deque(maxlen=REPORTED_LEASES)
        self._heart = Heart(self._client, run_id, actor_id, incarnation)

    def next(self, have_version: int, timeout_s: float) -> Lease | None:
        self._raise_if_closed()
        self._has(have_version)
        lease: Lease | None = self._until(timeout_s, self._ask)
        if lease is not None:
            self._heart.begin(lease.number)
        return lease

    def delivered(self) -> None:
        self._received.append(self._heart.end())

    def close(self) -> None:
        self._heart.close(self._received)
        super().close()

    def _ask(self, remaining_s: float) -> Lease | None:
        request = pb.NextRequest(
            run_id=self._run_id,
            actor_id=self._actor_id,
            incarnation=self._incarnation,
            received=self._received,
            have_epoch=self._have[0],
            have_version=self._have[1],
            timeout_ms=int(remaining_s * 1e3),
        )
        opened = self._open("Next", request.SerializeToString(), remaining_s)
        if opened is not None and opened[1].finished:
            raise Finished(f"run {self._run_id} has come to its end")
        if opened is None or not opened[1].granted:
            return None
        call, header = opened
        if header.learner_epoch < self._have[0]:
            raise Rejected("version", f"lease from learner epoch {header.learner_epoch}, {self._have[0]} was seen")
        weights = self._receive(call, header.content) if header.HasField("content") else None
        self._refused = 0
        if weights is not None:
            self._have = (weights.learner_epoch, weights.version)
        return Lease(header.lease, header.learner_epoch, weights)
