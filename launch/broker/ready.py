"""When a broker counts as ready: a real client has shaken hands with it and had its metadata."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from headrace.common.errors import TransportError


def wait(bootstrap: str, deadline: float, still: Callable[[], None]) -> None:
    """Return when the broker at ``bootstrap`` answers. ``still`` raises when it cannot any more; ``deadline`` is
    on the monotonic clock. Raises :class:`TransportError` when time runs out."""
    log = logging.getLogger("kafka")
    level = log.level
    log.setLevel(logging.CRITICAL)  # refused connections are expected while it starts
    try:
        while True:
            still()
            if _answers(bootstrap, timeout_s=min(1.0, deadline - time.monotonic())):
                return
            if time.monotonic() >= deadline:
                raise TransportError(f"broker: no answer from {bootstrap} in time")
    finally:
        log.setLevel(level)


def _answers(bootstrap: str, timeout_s: float) -> bool:
    try:
        client = KafkaAdminClient(
            bootstrap_servers=bootstrap,
            bootstrap_timeout_ms=max(1, int(timeout_s * 1000)),
            reconnect_backoff_max_ms=100,
        )
    except KafkaError:
        return False
    client.close()
    return True
