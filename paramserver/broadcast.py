"""Versions on their way down: to whoever asks, the newest there is, as the chunk messages it came in.

A stream that is slow holds the version it is being sent and nothing else: there is no queue per subscriber, the next
version it asks for is the newest. For one event loop: nothing is locked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headrace.common.metrics import Metrics
from headrace.common.weights.chunks import Blob
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver.answers import Context, machine
from headrace.paramserver.options import Options
from headrace.paramserver.slots import Slots
from headrace.paramserver.store import Versions


class Broadcast:
    """``wake`` is to be called whenever ``versions`` changed."""

    def __init__(
        self,
        versions: Versions[Blob],
        options: Options,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._versions, self._options, self._metrics, self._clock = versions, options, metrics, clock
        self._slots = Slots(options.max_subscribers, options.max_subscribers_per_host)
        self._changed = asyncio.Event()
        self.called_s = clock()  # when somebody was last answered

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def reach(self, order: tuple[int, int], until_s: float) -> bool:
        """Wait until there is the version (epoch, number) or a newer one; False if ``until_s`` came first."""
        while (current := self._versions.current) is None or current.order < order:
            try:
                async with asyncio.timeout(until_s - self._clock()):
                    await self._changed.wait()
            except TimeoutError:
                return False
        return True

    async def follow(
        self, context: Context, run_id: str, have: tuple[int, int], raise_if_closed: Callable[[], None]
    ) -> None:
        """Every newest version after ``have``, until the run has come to its end."""
        while True:
            self._versions.check_run(run_id)  # which run it is may show with the first version only
            version = self._versions.newer_than(have)
            if version is not None:
                await self.write(context, pb.Header(learner_epoch=version.learner_epoch), have)
                have = version.order
                continue
            raise_if_closed()
            if self._versions.finished:
                await context.write(pb.Piece(header=pb.Header(finished=True)).SerializeToString())
                return
            await self._changed.wait()

    async def write(self, context: Context, header: pb.Header, have: tuple[int, int] | None) -> None:
        """A header, and the newest version behind it if it is newer than ``have`` (None: without any)."""
        version = None if have is None else self._versions.newer_than(have)
        if have is None or version is None:
            await context.write(pb.Piece(header=header).SerializeToString())
            return
        header.content.CopyFrom(version.content.content)
        if have[0] == version.learner_epoch and have[1] >= 0:
            self._metrics.inc("weights_skipped_versions_total", version.number - have[1] - 1)
        async with asyncio.timeout(self._options.transfer_timeout_s):
            await context.write(pb.Piece(header=header).SerializeToString())
            for chunk in version.content.messages:
                await context.write(chunk)
        self._metrics.inc("weights_bytes_total", version.content.content.total_bytes)

    @contextmanager
    def subscriber(self, context: Context) -> Iterator[None]:
        """A slot while inside. Raises :class:`Busy`."""
        with self._slots.one(machine(context)):
            try:
                yield
            finally:
                self.called_s = self._clock()

    def report(self) -> None:
        """Bring the metrics up to date."""
        current = self._versions.current
        self._metrics.set("weights_subscribers", self._slots.taken)
        self._metrics.set("weights_version", current.number if current else -1)
