"""Who waits for a lease, the longest first. For one event loop: nothing is locked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.common.errors import Fenced, UsageError
from headrace.common.weights.chunks import Blob
from headrace.paramserver.store import LeaseGrant, LeaseRequest, Store
from headrace.paramserver.workers import Busy

_Waiting = asyncio.Future[LeaseGrant[Blob] | None]


class Line:
    """``serve`` is called whenever there may be a lease for somebody."""

    def __init__(self, store: Store[Blob], clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._waiting: dict[_Waiting, LeaseRequest] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, ask: LeaseRequest, timeout_s: float) -> LeaseGrant[Blob] | None:
        """A lease, or None: not in time, or the run has finished. Raises what :meth:`Store.next` raises, and
        :class:`Busy` when the line is closed."""
        self.raise_if_closed()
        waiting: _Waiting = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = ask
        try:
            return await asyncio.wait_for(waiting, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._waiting[waiting]

    def serve(self, everybody: bool = False) -> None:
        """Give what leases there are. ``everybody`` is heard where asking also tells a ledger that was just rebuilt
        what the actor has put."""
        if not (everybody or self._store.ledger.room):
            return  # asked at every turn: thousands may wait
        for waiting, ask in list(self._waiting.items()):
            if not (everybody or self._store.ledger.room):
                break
            if waiting.done():
                continue
            try:
                grant = self._store.next(ask, self._clock())
            except (Busy, Fenced, UsageError) as e:
                waiting.set_exception(e)
                continue
            if grant is not None:
                waiting.set_result(grant)

    def send_home(self) -> None:
        """There will be no more leases."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def close(self) -> None:
        """Send away who waits, and whoever comes."""
        self._closed = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(Busy("shutting down"))

    def raise_if_closed(self) -> None:
        if self._closed:
            raise Busy("shutting down")
