"""When a broker counts as ready: a real client has shaken hands with it and had its metadata."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

from kafka import KafkaAdminClient

from headrace.common.errors import HeadraceError, TransportError
from headrace.common.transport.kafka_address import Address
from headrace.common.transport.kafka_contact import connect


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
            time.sleep(0.05)
    finally:
        log.setLevel(level)


def _answers(bootstrap: str, timeout_s: float) -> bool:
    address = Address((bootstrap,), "", login={"security_protocol": "PLAINTEXT"})
    host, port = bootstrap.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=max(0.01, timeout_s)).close()
        connect(KafkaAdminClient, address, bootstrap_timeout_ms=max(1, int(timeout_s * 1000))).close()
    except (OSError, HeadraceError):
        return False
    return True
