"""The dead-letter topic: what must not reach the learner is kept with its reason and where it came from."""

from __future__ import annotations

import logging
import time
from threading import Lock

from headrace.common.errors import HeadraceError
from headrace.common.metrics import Metrics
from headrace.common.transport import kafka_rights
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_address import Address
from headrace.common.transport.kafka_client import Headers, Undelivered
from headrace.common.transport.kafka_sink import BoundedProducer

logger = logging.getLogger(__name__)

BURY_TIMEOUT_S = 10.0
DETAIL_CHARS = 500
KEY_BYTES = 1024
#: Lines in the log; a flood of bad records is counted, not written out.
LINES = 100
#: A letter that took longer than this and failed keeps the next ones from trying for ten times as long.
SLOW_S = 1.0


class DeadLetters:
    """Writes to ``<topic>.dead``; its producer is made with the first letter.

    A letter that cannot be kept is counted and logged, and costs that letter only: it must not stop the learner. One
    longer than ``letter_bytes`` is kept cut; the header cut_from_bytes then says how long it was.
    """

    def __init__(self, address: Address, limits: Limits, metrics: Metrics, letter_bytes: int) -> None:
        self._address, self._limits, self._metrics, self._letter_bytes = address, limits, metrics, letter_bytes
        self._lock = Lock()
        self._producer: BoundedProducer | None = None
        self._lines = 0
        self._not_before_s = 0.0

    def bury(self, record: bytes, key: bytes, partition: int, offset: int, reason: str, detail: str) -> None:
        """Keep ``record`` as it was. Headers: reason, detail, topic, partition, offset, and cut_from_bytes if cut."""
        where = f"{self._address.topic}[{partition}]@{offset}"
        self._say(logging.WARNING, "%s rejected (%s): %s", where, reason, detail[:DETAIL_CHARS])
        said = {"reason": reason, "detail": detail[:DETAIL_CHARS], "topic": self._address.topic}
        said |= {"partition": str(partition), "offset": str(offset)}
        if len(record) > self._letter_bytes:
            said["cut_from_bytes"] = str(len(record))
        headers = [(name, text.encode()) for name, text in said.items()]
        began = time.monotonic()
        if began < self._not_before_s:
            self._lost(f"{where}: the last one failed a moment ago")
        elif not self._send(key[:KEY_BYTES], record[: self._letter_bytes], headers):
            took_s = time.monotonic() - began
            self._not_before_s = began + 11 * took_s if took_s > SLOW_S else 0.0

    def _send(self, key: bytes, record: bytes, headers: Headers) -> bool:
        try:
            with self._lock:
                if self._producer is None:
                    # Not the learner's figures: puts and acknowledgements of letters would look like an actor's.
                    own = Metrics("dead_letters")
                    self._producer = BoundedProducer(self._address, self._limits, own, lost=self._lost)
            return self._producer.send(self._address.dead_topic, key, record, headers, BURY_TIMEOUT_S)
        except HeadraceError as error:
            self._lost(error)
            return False

    def _lost(self, why: object) -> None:
        if isinstance(why, Undelivered) and why.kind == "forbidden":
            why = kafka_rights.missing(self._address, kafka_rights.WRITE, "topic", self._address.dead_topic)
        self._metrics.inc("transport_errors_total", kind="dead_letter")
        self._say(logging.ERROR, "%s: a dead letter was not kept: %s", self._address.where, why)

    def _say(self, level: int, line: str, *words: object) -> None:
        self._lines += 1
        if self._lines <= LINES:
            logger.log(level, line, *words)
        if self._lines == LINES:
            logger.warning("%s: further rejected records are only counted, not logged", self._address.where)

    def close(self, timeout_s: float) -> None:
        if self._producer is not None:
            self._producer.close(timeout_s)
