"""A relay: a parameter server for those below it, which has its weights and its leases from another one.

It hands a lease on together with the version that the lease names, so that staleness is bounded through any number of
relays, however slow the weights are on their way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.common.weights.chunks import Blob
from headrace.paramserver.answers import Context, answer_errors
from headrace.paramserver.options import Options
from headrace.paramserver.service import Service
from headrace.paramserver.store import Versions
from headrace.paramserver.upstream import Parents, Upstream


class Relay(Service):
    """``run`` is to run beside it. ``on_first_weights`` is called once, when there is something to serve."""

    def __init__(
        self,
        parents: Parents,
        versions: Versions[Blob],
        options: Options,
        metrics: Metrics,
        on_first_weights: Callable[[], Any] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.upstream = Upstream(parents, versions, options, metrics, self._changed)
        super().__init__(versions, self.upstream, options, metrics, clock)
        self._parents, self._on_first_weights, self._served = parents, on_first_weights, False

    def calls(self) -> dict[str, Any]:
        return super().calls() | {
            "Publish": grpc.stream_unary_rpc_method_handler(self.refuse),
            "Admit": grpc.unary_unary_rpc_method_handler(self.refuse),
        }

    async def refuse(self, _: Any, context: Context) -> NoReturn:
        async with answer_errors(context):
            raise UsageError(f"this is a relay of {', '.join(self._parents.addresses)}; learners publish at the root")
        raise AssertionError

    def _changed(self) -> None:
        if self._versions.finished:
            self._broadcast.called_s = self._clock()
        self._broadcast.wake()
        if not self._served and self._versions.current is not None:
            self._served = True
            self._on_first_weights()
