"""Read /metrics of many role processes at once, each within a deadline.

    endpoints -> scrape(endpoints) -> [Scrape(endpoint, values | error)]

A value is found under its name without our prefix and, where it has a label, the label's value in braces:
``learner_updates_total``, ``actor_phase_seconds_total{env}``. (No metric of ours has two labels; buckets are left out.)
"""

from __future__ import annotations

import http.client
import os
import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Thread
from urllib.parse import urlsplit

from headrace.common.errors import UsageError
from headrace.observe.endpoints import Endpoint

MAX_BYTES = 4 << 20
PARALLEL = 32


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one process showed at ``time_s`` (a monotonic clock); ``error`` says why it showed nothing."""

    endpoint: Endpoint
    time_s: float
    values: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def up(self) -> bool:
        return not self.error

    def value(self, name: str, default: float = 0.0) -> float:
        return self.values.get(name, default)

    def by_label(self, name: str) -> dict[str, float]:
        """The values of a metric with a label, by the label's value."""
        return {k[len(name) + 1 : -1]: v for k, v in self.values.items() if k.startswith(name + "{")}


def growth(scrape: Scrape, before: Sequence[Scrape]) -> Mapping[str, float]:
    """What a process's values grew by since ``before``; its totals where it started in between, or where no phase of it
    ended meanwhile (one long update)."""
    old = next((b for b in before if b.up and b.endpoint == scrape.endpoint), None)
    if old is None or old.value("up_seconds") > scrape.value("up_seconds"):
        return scrape.values
    grown = {name: value - old.value(name) for name, value in scrape.values.items()}
    phases = sum(v for k, v in grown.items() if "_phase_seconds_total{" in k)
    return grown if phases > 0 else scrape.values


def endpoint_of(url: str) -> Endpoint:
    """An endpoint named by address only; its role is learnt from what it shows. Raises :class:`UsageError`."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"metrics address {url!r}: use http://host:port")
    return Endpoint("", 0, 0, url)


def scrape(endpoints: Sequence[Endpoint], deadline_s: float = 2.0) -> list[Scrape]:
    """Ask all of them, 32 at a time, each for at most ``deadline_s``; answers in the order of ``endpoints``."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    answers: list[Scrape | None] = [None] * len(endpoints)

    def work() -> None:
        while True:
            try:
                i = todo.get_nowait()
            except queue.Empty:
                return
            answers[i] = _ask(endpoints[i], deadline_s)

    for i in range(len(endpoints)):
        todo.put(i)
    # Daemon threads, joined with a deadline of their own: a name that does not resolve must not hold up the rest.
    threads = [Thread(target=work, daemon=True) for _ in range(min(PARALLEL, len(endpoints)))]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + (deadline_s + 0.5) * -(-len(endpoints) // PARALLEL)
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()))
    late = f"no answer in {deadline_s:g} s"
    return [a or Scrape(e, time.monotonic(), error=late) for a, e in zip(answers, endpoints, strict=True)]


def _ask(endpoint: Endpoint, deadline_s: float) -> Scrape:
    try:
        values = parse(_fetch(endpoint.metrics, deadline_s))
    except TimeoutError:
        return Scrape(endpoint, time.monotonic(), error=f"no answer in {deadline_s:g} s")
    except (OSError, http.client.HTTPException, ValueError) as e:
        return Scrape(
            endpoint, time.monotonic(), error=os.strerror(e.errno) if isinstance(e, OSError) and e.errno else str(e)
        )
    shown = next((name[len("role_info{") : -1] for name in values if name.startswith("role_info{")), "")
    if not shown or endpoint.role not in ("", shown):
        return Scrape(endpoint, time.monotonic(), error=f"what answers there is {shown or 'not a role of ours'}")
    return Scrape(Endpoint(shown, endpoint.index, endpoint.pid, endpoint.metrics), time.monotonic(), values)


def _fetch(url: str, deadline_s: float) -> str:
    until_s = time.monotonic() + deadline_s
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=deadline_s)
    try:
        path = parts.path.rstrip("/")
        connection.request("GET", path if path.endswith("/metrics") else path + "/metrics")
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"HTTP {response.status} {response.reason}")
        body = b""
        while chunk := response.read1(1 << 16):
            body += chunk
            if len(body) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes of metrics")
            if time.monotonic() > until_s:
                raise TimeoutError
        return body.decode()
    finally:
        connection.close()


def parse(text: str) -> dict[str, float]:
    """The samples of ours in Prometheus' text format. Raises ValueError for text that is not in it."""
    from prometheus_client.parser import text_string_to_metric_families

    from headrace.common.metrics_table import PREFIX

    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(PREFIX) and "le" not in sample.labels:
                label = "".join("{" + value + "}" for value in sample.labels.values())
                values[sample.name.removeprefix(PREFIX) + label] = sample.value
    return values
