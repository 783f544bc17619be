"""The evaluators' end of the gRPC carrier: every newest version, without leases."""

from __future__ import annotations

from headrace.common.errors import Finished
from headrace.common.types import Weights
from headrace.common.weights.reader import Reader
from headrace.common.wire import paramserver_pb2 as pb


class GrpcFollower(Reader):
    """Every newest version, as it comes."""

    def newest(self, have_version: int, timeout_s: float) -> Weights | None:
        """The newest version after ``have_version`` (-1: none yet), as soon as there is one; None at the timeout."""
        self._raise_if_closed()
        self._has(have_version)
        weights: Weights | None = self._until(timeout_s, self._ask)
        return weights

    def _unheard(self, began_s: float) -> None:
        """Nothing newer than what we have, if only the server is there."""
        if self._client.connected():
            self._client.welcome()
            self._away.over()
        else:
            super()._unheard(began_s)

    def _ask(self, remaining_s: float) -> Weights | None:
        request = pb.SubscribeRequest(run_id=self._run_id, have_epoch=self._have[0], have_version=self._have[1])
        opened = self._open("Subscribe", request.SerializeToString(), remaining_s)
        if opened is None:
            return None
        call, header = opened
        if header.finished:
            raise Finished(f"run {self._run_id} has come to its end")
        try:
            weights = self._receive(call, header.content)
        finally:
            call.cancel()
        self._refused, self._have = 0, (weights.learner_epoch, weights.version)
        return weights
