"""Reading the log from offsets of our own: poll, decode, and what to do when an offset, a batch or the log is bad.

Used by one thread (kafka_source.py), but for ``ends``.

Memory beside the caller's queue: what the client fetched ahead, about ``FETCH_BYTES`` a broker.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from headrace.common.codec import decode
from headrace.common.errors import HeadraceError, LogLost, NoAnswer, Rejected, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport import kafka_client, kafka_rights, kafka_topics
from headrace.common.transport.base import Limits, Position, Received, UndecodableRecords
from headrace.common.transport.kafka_address import CONNECT_TIMEOUT_S, Address
from headrace.common.transport.kafka_dead import DeadLetters
from headrace.common.transport.kafka_patience import Patience
from headrace.common.transport.kafka_sink import RUN_HEADER

logger = logging.getLogger(__name__)

PAUSE_S = 0.1  # after a failure that comes at once
ANSWER_S = CONNECT_TIMEOUT_S + kafka_client.ASK_TIMEOUT_S


class Reader:
    """Reads the partitions that ``mine`` accepts, those added later included.

    ``ends``: partition -> end of the log as last seen (replaced as a whole, so any thread may read it), which was at
    ``ends_seen_s``.
    ``run``: records that say they are of another run are skipped; "" skips none.
    """

    def __init__(
        self,
        address: Address,
        limits: Limits,
        metrics: Metrics,
        group: str,
        mine: Callable[[int], bool],
        dead: DeadLetters,
        run: str = "",
    ) -> None:
        self._address, self._limits, self._metrics, self._mine, self._dead = address, limits, metrics, mine, dead
        self._run, self._group, self._group_refused = run.encode(), group, False
        self._next: dict[int, int] = {}  # partition -> offset of the next record to read
        self._record_bytes = 0  # of the largest record seen
        self._ends_at_s = self.ends_seen_s = 0.0
        self._patience = Patience(address.where, address.patience_s)
        self._silent = False  # the last poll gave nothing
        self._damaged_at: tuple[int, int] = (-1, -1)  # partition and offset stepped over last
        self.ends: Mapping[int, int] = {}
        self.undecodable = UndecodableRecords()
        self._consumer = kafka_client.open_consumer(address, limits, group)

    def seek(self, position: Position | None) -> Position | None:
        """Go on from ``position``, or from the end of the log without one. Returns where each partition starts, or None
        when the broker is away.

        Partitions that ``position`` does not name start at their oldest record. Offsets below the start of the log jump
        to it, counted as a gap. Raises :class:`LogLost` for an offset beyond the end: that position belongs to another
        log.
        """
        try:
            asked_s = time.monotonic()
            begins, ends = self._ours(self._consumer.begins()), self._ours(self._consumer.ends())
            position = ends if position is None else position
            if strange := sorted(set(position) - set(ends)):
                raise UsageError(f"{self._address.where}: position names partitions {strange}, not read by this rank")
            for p in ends:
                offset = position.get(p, begins[p])
                if offset > ends[p]:
                    raise LogLost(
                        f"{self._address.where}: position {offset} of partition {p} is beyond the end of the log "
                        f"({ends[p]}); is this the topic of that checkpoint?"
                    )
                self._go_on(p, offset, begins[p])
            self._consumer.assign(self._next)
        except kafka_client.Unreachable as error:
            self._away(error)
            return None
        self._saw_ends(ends, asked_s)
        return dict(self._next)

    def poll(self, timeout_s: float, room_bytes: int) -> Iterator[Received]:
        """Decoded records, about ``room_bytes`` of them at most; none when there are none within ``timeout_s``."""
        fit = room_bytes // self._record_bytes if self._record_bytes else 1
        try:
            if added := set(self.ends) - set(self._next):
                begins = self._consumer.begins()
                self._next |= {p: begins[p] for p in added}
                self._consumer.assign(self._next)
            records = self._consumer.poll(timeout_s, min(500, max(1, fit)))
        except kafka_client.Unreachable as error:
            return self._away(error)
        except (kafka_client.Damaged, kafka_client.OutOfRange) as error:
            return self._recover(error)
        self._silent = not records
        if records:
            self._patience.records_came()
        for record in records:
            self._next[record.partition] = record.offset + 1
            received = self._decoded(record)
            if received is not None:
                self._record_bytes = max(self._record_bytes, received.nbytes)
                yield received

    def refresh_ends(self, every_s: float) -> None:
        """Look where the log ends, at most once in ``every_s``: for the lag, for partitions that were added (``poll``
        begins to read them), and to see that broker and topic are there, since clients hide that they are not.

        Raises :class:`TransportError` when the broker stays away longer than the address's ``patience_s``, and
        :class:`LogLost` when the topic is not the one that was read so far.
        """
        if time.monotonic() - self._ends_at_s < every_s:
            return
        try:
            asked_s = time.monotonic()
            ends = self._ours(self._consumer.ends())
            self._patience.client_answers()
            self._saw_ends(ends, asked_s)
            beyond = [
                f"position {at} of partition {p} is beyond its end ({ends.get(p)})"
                for p, at in self._next.items()
                if at > ends.get(p, -1)
            ]
            self._patience.lost(f"{beyond[0]}: the topic was made anew, or its log was cut" if beyond else "")
            if self._silent and self.unread():
                self._replace_if_stuck()
            else:
                self._patience.not_stuck()
        except kafka_client.Unreachable as error:
            self._away(error)

    def unread(self) -> int:
        """Records between what was read, refused ones included, and the end of the log as last seen."""
        return sum(max(0, end - self._next.get(p, end)) for p, end in self.ends.items())

    def commit(self, position: Position) -> None:
        if self._group_refused:
            return
        try:
            self._consumer.commit({p: offset for p, offset in position.items() if p in self._next})
        except kafka_client.GroupRefused:
            said = kafka_rights.missing(self._address, kafka_rights.READ, "group", self._group)
            logger.warning("%s; until then, and its next start, Kafka shows no progress of it; all else goes on", said)
            self._group_refused = True
        except (kafka_client.Unreachable, kafka_client.OutOfRange, HeadraceError) as error:
            self._metrics.inc("transport_errors_total", kind="commit")
            logger.warning("%s: progress was not committed: %s", self._address.where, error)

    def close(self, timeout_s: float) -> None:
        self._consumer.close(timeout_s)

    def _ours(self, offsets: Mapping[int, int]) -> dict[int, int]:
        return {p: offset for p, offset in offsets.items() if self._mine(p)}

    def _decoded(self, record: kafka_client.Record) -> Received | None:
        run = dict(record.headers).get(RUN_HEADER)
        if self._run and run is not None and run != self._run:
            self._metrics.inc("transport_foreign_records_total")
            return None
        data = record.value
        self._metrics.inc("transport_records_total", direction="got")
        self._metrics.inc("transport_bytes_total", len(data), direction="got")
        try:
            trajectory = decode(data, self._limits.record_bytes)
        except Rejected as rejected:
            self._metrics.inc("learner_rejected_total", reason=rejected.reason)
            self.undecodable.add(rejected.reason, record.partition, record.offset + 1)
            self._dead.bury(data, record.key, record.partition, record.offset, rejected.reason, str(rejected))
            return None
        return Received(trajectory, record.partition, record.offset + 1, max(len(data), trajectory.nbytes))

    def _saw_ends(self, ends: Mapping[int, int], asked_s: float) -> None:
        self._ends_at_s = time.monotonic()
        self.ends, self.ends_seen_s = ends, asked_s
        for p, end in ends.items():
            self._metrics.set("transport_lag_records", max(0, end - self._next.get(p, end)), partition=str(p))

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _recover(self, error: kafka_client.Damaged | kafka_client.OutOfRange) -> None:
        try:
            if isinstance(error, kafka_client.Damaged):
                self._step_over(error)
            else:  # retention was faster than we, or the log is another one: refresh_ends says so
                begins = self._consumer.begins()
                for p, offset in self._next.items():
                    self._go_on(p, offset, begins.get(p, 0))
                time.sleep(PAUSE_S)
            self._consumer.assign(self._next)
        except kafka_client.Unreachable as away:
            self._away(away)

    def _step_over(self, error: kafka_client.Damaged) -> None:
        """Leave out one record of a batch whose bytes changed in the log; going back would read the same bytes, and no
        client says where the next batch begins. Which partition it is in shows when each is read alone."""
        ends = self._ours(self._consumer.ends())
        for p in sorted(self._next, key=lambda p: (p != self._damaged_at[0], p)):
            if self._next[p] < ends.get(p, 0) and not self._readable(p):
                if self._damaged_at != (p, self._next[p] - 1):
                    logger.warning("%s: stepping over a damaged batch: %s", self._address.where, error)
                self._metrics.inc("learner_rejected_total", reason="crc")
                self.undecodable.add("crc", p, self._next[p] + 1)
                self._damaged_at = (p, self._next[p])
                self._next[p] += 1
                return

    def _readable(self, partition: int) -> bool:
        self._consumer.assign({partition: self._next[partition]})
        until = time.monotonic() + kafka_client.ASK_TIMEOUT_S
        while time.monotonic() < until:
            try:
                if self._consumer.poll(PAUSE_S, 1):
                    return True
            except kafka_client.Damaged:
                return False
        raise kafka_client.Unreachable(f"no record of partition {partition} within {kafka_client.ASK_TIMEOUT_S:.0f} s")

    def _away(self, error: kafka_client.Unreachable) -> None:
        """Asks for the topic over a new connection: is it the broker that is away, or our client that is stuck?"""
        self._ends_at_s = time.monotonic()
        self._metrics.inc("transport_errors_total", kind="unreachable")
        self._patience.away(error)
        try:
            there = kafka_client.within(ANSWER_S, partial(kafka_topics.is_there, self._address), "a first question")
        except (HeadraceError, kafka_client.Unreachable):
            self._patience.not_stuck()
        else:
            gone = "the topic is not there any more: it was deleted, or the broker lost its disk"
            self._patience.lost("" if there else gone)
            self._replace_if_stuck()
        time.sleep(PAUSE_S)

    def _replace_if_stuck(self) -> None:
        """A new client, for one that reads nothing though the broker answers: libraries have been seen to wait for ever
        after a broker's death."""
        if (stuck_s := self._patience.stuck()) is None:
            return
        self._metrics.inc("transport_errors_total", kind="stuck")
        logger.warning("%s: nothing is read for %.0f s; goes on with a new client", self._address.where, stuck_s)
        former = self._consumer
        with contextlib.suppress(NoAnswer, kafka_client.Unreachable):  # the broker went away again
            self._consumer = kafka_client.open_consumer(self._address, self._limits, self._group)
            former.close(PAUSE_S)
            self._consumer.assign(self._next)

    def _go_on(self, partition: int, offset: int, begin: int) -> None:
        """Read on from ``offset``, or from where the log begins when that is later."""
        if offset < begin:
            self._metrics.inc("transport_gap_records_total", begin - offset)
            logger.warning(
                "%s: %d records of partition %d were removed by retention before they were read; going on at %d",
                self._address.where, begin - offset, partition, begin,
            )  # fmt: skip
        self._next[partition] = max(offset, begin)
