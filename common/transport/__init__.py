"""open_sink and open_source: the address picks the carrier, and its client is imported only then."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport.base import Limits, Position, Received, Sink, Source, Undecodable

__all__ = [
    "Limits",
    "Position",
    "Received",
    "Sink",
    "Source",
    "Undecodable",
    "check_url",
    "for_run",
    "open_sink",
    "open_source",
    "patience_s",
]


def for_run(url: str, run_id: str) -> str:
    """``url`` with what it leaves to the run: a Kafka address without a topic means one topic per run."""
    parts = urlsplit(url)
    if parts.scheme != "kafka" or parts.path.strip("/"):
        return url
    topic = "headrace-" + re.sub(r"[^a-zA-Z0-9._-]", "-", run_id)[:180]
    return urlunsplit((parts.scheme, parts.netloc, f"/{topic}", parts.query, parts.fragment))


def check_url(url: str) -> None:
    """Raises :class:`UsageError` for an address that no carrier can have, whether or not anything is there."""
    patience_s(url)


def patience_s(url: str) -> float:
    """How long the carrier behind ``url`` may be away before those who use it give up."""
    match urlsplit(url).scheme:
        case "local":
            from headrace.common.transport.memory_file import socket_path

            socket_path(url)
            return 0.0
        case "kafka":
            from headrace.common.transport.kafka_address import parse

            return float(parse(url).patience_s)
    raise _unknown(url)


def open_sink(
    url: str, *, limits: Limits, metrics: Metrics, key: str, stop: Callable[[], bool] = lambda: False
) -> Sink:
    """The writing half behind ``url``. ``key`` names the writer (records of one key keep their order).

    Raises :class:`UsageError` for an unknown scheme or a carrier that is not there, and :class:`Closed` when ``stop()``
    comes true while a reader is waited for.
    """
    match urlsplit(url).scheme:
        case "local":
            from headrace.common.transport.local import LocalSink

            return LocalSink(url, limits, metrics, key, stop=stop)
        case "kafka":
            from headrace.common.transport.kafka_sink import KafkaSink

            return KafkaSink(url, limits, metrics, key)
    raise _unknown(url)


def open_source(
    url: str,
    *,
    limits: Limits,
    metrics: Metrics,
    dead_letter: Path,
    group: str,
    run_id: str = "",
    rank: int = 0,
    world: int = 1,
) -> Source:
    """The reading half behind ``url`` for learner ``rank`` of ``world``; ``group`` names it where progress is shown.

    Records that say they are of another run than ``run_id`` are skipped where several may share a log ("" skips none).
    What cannot be decoded, or is rejected, is kept under ``dead_letter`` (a carrier with a log uses its own topic).
    """
    match urlsplit(url).scheme:
        case "local":
            from headrace.common.transport.local import LocalSource

            return LocalSource(url, limits, metrics, dead_letter)
        case "kafka":
            from headrace.common.transport.kafka_source import KafkaSource

            return KafkaSource(url, limits, metrics, group, run_id, rank, world)
    raise _unknown(url)


def _unknown(url: str) -> UsageError:
    return UsageError(f"carrier {url!r}: unknown scheme; use local:///path or kafka://host:port/topic")
