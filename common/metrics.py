"""Every metric's name, kind, unit, help and labels in one table, and how a role shows them.

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
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from headrace.common.errors import REJECT_REASONS, UsageError

PREFIX = "headrace_"

LATENCY_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0)
VERSIONS = (0, 1, 2, 4, 8, 16, 32, 64)
BYTES = tuple(1024 * 4**i for i in range(8))


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. ``kind``: counter (name ends in _total), gauge or histogram (needs ``buckets``).

    ``values`` is the whole set of the label's values, where it is known beforehand; another value is a KeyError.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    values: tuple[str, ...] = ()


ACTOR_PHASES = ("lease", "env", "policy", "put")
LEARNER_PHASES = ("wait", "assemble", "update", "publish", "checkpoint")

TABLE: tuple[Metric, ...] = (
    # every role
    Metric("role_info", "gauge", "Always 1; the label names the role of this process", ("role",)),
    Metric("up_seconds", "gauge", "Seconds since this role started"),
    # actors
    Metric("actor_env_steps_total", "counter", "Environment steps taken"),
    Metric("actor_episodes_total", "counter", "Episodes finished"),
    Metric("actor_fragments_total", "counter", "Fragments handed to the carrier"),
    Metric("actor_phase_seconds_total", "counter", "Time spent, by phase", ("phase",), values=ACTOR_PHASES),
    Metric("actor_env_rebuilds_total", "counter", "Times a worker whose environment failed made all of them anew"),
    Metric("actor_policy_version", "gauge", "Version of the weights the actor acts with"),
    # carriers
    Metric(
        "transport_records_total", "counter", "Records carried, by direction", ("direction",), values=("put", "got")
    ),
    Metric("transport_bytes_total", "counter", "Encoded bytes carried", ("direction",), values=("put", "got")),
    Metric("transport_unacked_bytes", "gauge", "Bytes put and not acknowledged yet"),
    Metric("transport_queue_bytes", "gauge", "Bytes decoded or received and waiting for the learner"),
    Metric("transport_blocked_seconds_total", "counter", "Time put() waited for room"),
    Metric("transport_ack_seconds", "histogram", "From put to acknowledgement", (), LATENCY_S),
    Metric("transport_errors_total", "counter", "Errors of the carrier's client, by kind", ("kind",)),
    Metric("transport_lag_records", "gauge", "Records in the log that were not read yet", ("partition",)),
    Metric("transport_gap_records_total", "counter", "Records that retention removed before they were read"),
    Metric("transport_foreign_records_total", "counter", "Records of other runs on the same topic, skipped"),
    # learner
    Metric("learner_updates_total", "counter", "Versions made"),
    Metric("learner_samples_total", "counter", "Samples used in gradient steps"),
    Metric("learner_env_steps_total", "counter", "Environment steps trained on"),
    Metric("learner_fragments_total", "counter", "Fragments admitted"),
    Metric("learner_rejected_total", "counter", "Fragments refused, by reason", ("reason",), values=REJECT_REASONS),
    Metric("learner_phase_seconds_total", "counter", "Time spent, by phase", ("phase",), values=LEARNER_PHASES),
    Metric("learner_staleness_versions", "histogram", "Version trained minus the oldest in the fragment", (), VERSIONS),
    Metric("learner_queue_fragments", "gauge", "Fragments validated and waiting to be trained on"),
    Metric("learner_train", "gauge", "What the algorithm reports of its last update, by term", ("term",)),
    Metric("learner_episode_return", "gauge", "Mean undiscounted return of the latest finished episodes"),
    Metric("learner_policy_version", "gauge", "Latest version made"),
    # evaluators
    Metric("evaluator_return", "gauge", "Mean undiscounted return of the latest greedy evaluation"),
    Metric("evaluator_policy_version", "gauge", "Version evaluated last"),
    # checkpoints
    Metric("checkpoint_seconds", "histogram", "Time to write a checkpoint", (), LATENCY_S),
    Metric("checkpoint_last_timestamp_seconds", "gauge", "Unix time of the last complete checkpoint"),
    Metric("checkpoint_failures_total", "counter", "Checkpoints that could not be written"),
    # weights
    Metric("weights_publish_seconds", "histogram", "From publish to the answer, seen by the learner", (), LATENCY_S),
    Metric("weights_encodes_total", "counter", "Versions encoded into chunks"),
    Metric("weights_bytes_total", "counter", "Bytes of weights sent to subscribers"),
    Metric("weights_subscribers", "gauge", "Streams and waiting calls open"),
    Metric("weights_version", "gauge", "Current version held by the server"),
    Metric("weights_refused_total", "counter", "Answers a subscriber refused: damaged, or older than what it had"),
    Metric("weights_skipped_versions_total", "counter", "Versions subscribers never asked for"),
    Metric("leases_issued_total", "counter", "Leases handed out"),
    Metric("leases_expired_total", "counter", "Leases whose actor is gone"),
    Metric("leases_admit_until", "gauge", "Fragments that may ever have been begun by now"),
    Metric("leases_out", "gauge", "Leases whose fragments did not come to the learner yet"),
    Metric("lease_oldest_worker", "gauge", "Worker whose fragment is missing for longest, -1: none"),
    Metric("lease_oldest_seconds", "gauge", "For how long that lease has been held, or not asked for in lockstep"),
    Metric("lease_oldest_silent_seconds", "gauge", "Time since that worker was last heard of"),
    # supervision
    Metric("restarts_total", "counter", "Processes started again, by role", ("role",)),
)

#: What a role shows from its start on, by the beginnings of the names.
SHOWN: dict[str, tuple[str, ...]] = {
    "actor": ("actor_", "transport_"),
    "learner": ("learner_", "transport_", "checkpoint_", "weights_publish_"),
    "paramserver": ("weights_", "leases_", "lease_"),
    "evaluator": ("evaluator_",),
}

_ROWS = {metric.name: metric for metric in TABLE}
_KINDS: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class Metrics:
    """One role's metrics. Names are given without the prefix; an unknown name is a KeyError (a test would see it)."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.registry = CollectorRegistry()
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
        self._child("up_seconds", {}).set_function(lambda: time.monotonic() - self._started_s)

    def inc(self, name: str, value: float = 1.0, **labels: str) -> None:
        self._child(name, labels).inc(value)

    def set(self, name: str, value: float, **labels: str) -> None:
        self._child(name, labels).set(value)

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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that hangs up is no news either: a role's last line in its log must be its own."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _health(healthy: Callable[[], bool]) -> tuple[int, bytes]:
    try:
        return (200, b"ok\n") if healthy() else (503, b"not making progress\n")
    except Exception as e:
        # A probe must get an answer: a check that fails is a role that is not well, and this says why.
        return 503, f"health check failed: {type(e).__name__}: {e}\n".encode()
