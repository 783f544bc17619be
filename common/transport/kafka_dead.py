"""The dead-letter topic: what must not reach the learner is kept with its reason and where it came from."""

from __future__ import annotations

import logging
from threading import Lock

from headrace.common.errors import HeadraceError
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits
from headrace.common.transport.kafka_client import Address
from headrace.common.transport.kafka_producer import BoundedProducer

logger = logging.getLogger(__name__)

BURY_TIMEOUT_S = 10.0
DETAIL_CHARS = 500
#: Lines in the log; a flood of bad records is counted, not written out.
LINES = 100


class DeadLetters:
    """Writes to ``<topic>.dead``; its producer is made with the first letter. A letter that cannot be kept is counted
    and logged: it must not stop the learner."""

    def __init__(self, address: Address, limits: Limits, metrics: Metrics) -> None:
        self._address, self._limits, self._metrics = address, limits, metrics
        self._lock = Lock()
        self._producer: BoundedProducer | None = None
        self._lines = 0

    def bury(self, record: bytes, key: bytes, partition: int, offset: int, reason: str, detail: str) -> None:
        """Keep ``record`` as it was. Headers: reason, detail, topic, partition, offset."""
        where = f"{self._address.topic}[{partition}]@{offset}"
        self._say(logging.WARNING, "%s rejected (%s): %s", where, reason, detail[:DETAIL_CHARS])
        headers = [
            ("reason", reason.encode()),
            ("detail", detail[:DETAIL_CHARS].encode()),
            ("topic", self._address.topic.encode()),
            ("partition", str(partition).encode()),
            ("offset", str(offset).encode()),
        ]
        try:
            self._open().send(self._address.dead_topic, key, record, headers, BURY_TIMEOUT_S)
        except HeadraceError as error:
            self._metrics.inc("transport_errors_total", kind="dead_letter")
            self._say(logging.ERROR, "%s was not kept as a dead letter: %s", where, error)

    def _say(self, level: int, line: str, *words: object) -> None:
        self._lines += 1
        if self._lines <= LINES:
            logger.log(level, line, *words)
        if self._lines == LINES:
            logger.warning("%s: further rejected records are only counted, not logged", self._address.where)

    def _open(self) -> BoundedProducer:
        with self._lock:
            if self._producer is None:
                # Not the learner's figures: puts, acknowledgements and bytes of letters would look like an actor's.
                self._producer = BoundedProducer(self._address, self._limits, Metrics("dead_letters"))
            return self._producer

    def close(self, timeout_s: float) -> None:
        with self._lock:
            if self._producer is None:
                return
            try:
                self._producer.close(timeout_s)
            except HeadraceError as error:
                self._metrics.inc("transport_errors_total", kind="dead_letter")
                logger.error("%s: dead letters lost: %s", self._address.where, error)
