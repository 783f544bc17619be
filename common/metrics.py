"""How a role counts and shows what metrics_table.py names.

    metrics = Metrics("learner")
    metrics.inc("learner_updates_total")
    with metrics.phase("learner_phase_seconds_total", "update"): ...
    metrics.serve(port=0)       # GET /metrics and /healthz

Each role process has a registry of its own (no globals), so many roles can live in one test process. A role shows the
metrics that are its own from its start on (the first event is then seen as an increase) and any other only once it is
used (a zero for what it does not have would be a lie).
"""

from __future__ import annotations

import contextlib
import socketserver
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from headrace.common.errors import UsageError
from headrace.common.metrics_table import PREFIX, SHOWN, TABLE, Metric

_ROWS = {metric.name: metric for metric in TABLE}
_KINDS: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class Metrics:
    """One role's metrics. Names are given without the prefix; an unknown name is a KeyError (a test would see it)."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._started_s = time.monotonic()
        self._families: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        self._lock = Lock()
        self._server: ThreadingHTTPServer | None = None
        for metric in TABLE:
            if metric.name.startswith(SHOWN.get(role, ())):
                if not metric.labels:
                    self._child(metric.name, {})
                for value in metric.values:
                    self._child(metric.name, {metric.labels[0]: value})
        self.set("role_info", 1, role=role)
        self.track("up_seconds", lambda: time.monotonic() - self._started_s)

    def inc(self, name: str, value: float = 1.0, **labels: str) -> None:
        self._child(name, labels).inc(value)

    def set(self, name: str, value: float, **labels: str) -> None:
        self._child(name, labels).set(value)

    def track(self, name: str, read: Callable[[], float]) -> None:
        """Let the gauge ``name`` ask ``read`` at every scrape."""
        self._child(name, {}).set_function(read)

    def observe(self, name: str, value: float, **labels: str) -> None:
        self._child(name, labels).observe(value)

    def value(self, name: str, **labels: str) -> float:
        """The present value of a counter or gauge (for the role's own reports and for tests)."""
        self._child(name, labels)  # there from now on, at 0
        (family,) = self._families[name].collect()
        return float(next(s.value for s in family.samples if s.labels == labels and not s.name.endswith("_created")))

    @contextlib.contextmanager
    def phase(self, name: str, phase: str) -> Iterator[None]:
        """Add the time spent inside to the counter ``name`` under the label ``phase``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.inc(name, time.perf_counter() - began, phase=phase)

    def _child(self, name: str, labels: dict[str, str]) -> Any:
        key = (name, *labels.values())
        child = self._children.get(key)
        if child is None:
            with self._lock:
                child = self._children[key] = self._make(_ROWS[name], labels)
        return child

    def _make(self, metric: Metric, labels: dict[str, str]) -> Any:
        if metric.values and not set(labels.values()) <= set(metric.values):
            raise KeyError(f"metric {metric.name}: {labels} is not in its table row; it knows {metric.values}")
        family = self._families.get(metric.name)
        if family is None:
            extra = {"buckets": metric.buckets} if metric.buckets else {}
            kind, name = _KINDS[metric.kind], PREFIX + metric.name
            family = kind(name, metric.help, metric.labels, registry=self.registry, **extra)
            self._families[metric.name] = family
        return family.labels(**labels) if labels else family

    def serve(self, port: int, host: str = "127.0.0.1", healthy: Callable[[], bool] = lambda: True) -> int:
        """Serve /metrics and /healthz from a daemon thread; returns the port bound (``port`` 0 picks one).

        /healthz answers 200 while ``healthy()`` is true and 503 when it is false or raises: a liveness probe, so
        ``healthy`` says whether the role makes progress, not whether others do. Raises :class:`UsageError` for a port
        that is taken.
        """
        if not 0 <= port <= 65535:
            raise UsageError(f"metrics at {host}:{port}: a port is 1 to 65535, or 0 to have one picked")
        registry = self.registry

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds a connection may say nothing

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8")
                elif path == "/healthz":
                    self._answer(*_health(healthy), "text/plain; charset=utf-8")
                else:
                    self._answer(404, b"only /metrics and /healthz\n", "text/plain")

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Scrapes are not news."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as e:
            raise UsageError(
                f"metrics at {host}:{port}: {e.strerror or e}; give a free port, or 0 to have one picked"
            ) from e
        Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # HTTPServer's own asks the DNS for this machine's name, which may take many seconds where there is none.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]


def _health(healthy: Callable[[], bool]) -> tuple[int, bytes]:
    try:
        return (200, b"ok\n") if healthy() else (503, b"not making progress\n")
    except Exception as e:
        # A probe must get an answer: a check that fails is a role that is not well, and this says why.
        return 503, f"health check failed: {type(e).__name__}: {e}\n".encode()
