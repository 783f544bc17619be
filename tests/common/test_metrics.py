"""The table of metrics: its names, what each role shows, and the two addresses it is shown at."""

import importlib.metadata
import platform
import socket
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headrace.common.build_info import build_labels
from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.common.metrics_table import PREFIX, SHOWN, TABLE

BASE_UNITS = ("_seconds", "_bytes", "_ratio", "_total", "_info", "_versions", "_records", "_fragments", "_steps")
NOT_BASE_UNITS = ("_ms", "_milliseconds", "_minutes", "_kb", "_mb", "_megabytes", "_percent")


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def shown(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {s.name + "".join(s.labels.values()): s.value for family in families for s in family.samples}


@pytest.mark.parametrize("metric", TABLE, ids=lambda m: m.name)
def test_names_follow_the_rules(metric) -> None:
    assert metric.name == metric.name.lower()
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not metric.name.removesuffix("_total").endswith(NOT_BASE_UNITS)
    if metric.kind == "histogram":
        assert metric.name.endswith(BASE_UNITS)
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert metric.help
    assert metric.help[0].isupper()
    assert not metric.help.endswith(".")


@pytest.mark.parametrize("metric", TABLE, ids=lambda m: m.name)
def test_labels_are_bounded(metric) -> None:
    """One label at most, its set known or one of the few that are open and small by nature. (An _info never moves.)"""
    if metric.name.endswith("_info"):
        return
    assert len(metric.labels) <= 1
    if metric.labels and not metric.values:
        assert metric.labels[0] in {"role", "kind", "term", "partition"}


def test_no_name_twice() -> None:
    assert len({metric.name for metric in TABLE}) == len(TABLE)


@pytest.mark.parametrize("role", sorted(SHOWN))
def test_what_a_role_shows_can_be_parsed_and_is_small(role: str) -> None:
    metrics = Metrics(role)
    text = generate_latest(metrics.registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in TABLE:
        family = families.get(PREFIX + metric.name.removesuffix("_total"))
        if family is not None:
            assert family.type == metric.kind
            assert family.documentation == metric.help
    assert all(name.startswith((PREFIX, "process_")) for name in families)
    assert sum(len(family.samples) for family in families.values()) < 200


def test_a_role_does_not_show_what_is_not_its_own() -> None:
    actor = shown(Metrics("actor"))
    assert actor[PREFIX + "actor_env_steps_total"] == 0
    assert actor[PREFIX + "actor_phase_seconds_totallease"] == 0
    assert actor[PREFIX + "role_infoactor"] == 1
    assert not [name for name in actor if "learner" in name or "weights_version" in name or "gpu" in name]
    assert "process_resident_memory_bytes" in actor


def test_another_roles_metric_is_shown_once_used() -> None:
    metrics = Metrics("actor")
    metrics.inc("weights_encodes_total", 2)
    assert shown(metrics)[PREFIX + "weights_encodes_total"] == 2


def test_inc_set_observe_value_and_phase() -> None:
    metrics = Metrics("learner")
    metrics.inc("learner_updates_total")
    metrics.inc("learner_updates_total", 2)
    metrics.set("learner_policy_version", 7)
    metrics.observe("learner_staleness_versions", 1)
    with metrics.phase("learner_phase_seconds_total", "update"):
        pass
    assert metrics.value("learner_updates_total") == 3
    assert metrics.value("learner_policy_version") == 7
    assert metrics.value("learner_phase_seconds_total", phase="update") > 0
    assert shown(metrics)[PREFIX + "learner_staleness_versions_count"] == 1


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("nonsense_total", {}),
        ("actor_phase_seconds_total", {"phase": "lunch"}),
        ("learner_rejected_total", {"reason": "x"}),
    ],
)
def test_what_is_not_in_the_table_is_refused(name: str, labels: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        Metrics("actor").inc(name, **labels)


def test_metrics_and_health_over_http() -> None:
    metrics = Metrics("learner")
    well: list[object] = [True]

    def healthy() -> bool:
        if isinstance(well[0], Exception):
            raise well[0]
        return bool(well[0])

    port = metrics.serve(0, healthy=healthy)
    try:
        metrics.inc("learner_updates_total", 5)
        status, text = fetch(port, "/metrics")
        assert status == 200
        assert "headrace_learner_updates_total 5.0\n" in text
        assert fetch(port, "/metrics?x=1")[0] == 200
        assert fetch(port, "/elsewhere")[0] == 404
        assert fetch(port, "/healthz") == (200, "ok\n")
        well[0] = False
        assert fetch(port, "/healthz") == (503, "not making progress\n")
        well[0] = OSError("disk gone")
        assert fetch(port, "/healthz") == (503, "health check failed: OSError: disk gone\n")
    finally:
        metrics.close()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}: Address already in use; give a free port"):
            Metrics("actor").serve(port)


def test_a_tracked_gauge_is_read_at_every_scrape() -> None:
    metrics, watts = Metrics("learner"), iter([300.0, 310.0])
    metrics.track("gpu_power_watts", lambda: next(watts))
    assert [shown(metrics)[PREFIX + "gpu_power_watts"] for _ in range(2)] == [300.0, 310.0]


def busy_actor() -> Metrics:
    """One that has shown everything an actor ever shows: every kind of error, every phase, what other roles share."""
    metrics = Metrics("actor")
    metrics.set("build_info", 1, **build_labels(with_torch=False))
    for kind in ("disconnected", "reconnected", "lost", "unreachable", "protocol", "descriptors", "crowded", "commit"):
        metrics.inc("transport_errors_total", kind=kind)
    for steps in range(1, 2000):
        metrics.observe("actor_episode_steps", steps)
        metrics.observe("actor_lease_wait_seconds", steps / 100)
    return metrics


def test_the_scrape_of_an_actor_is_small_and_quick() -> None:
    metrics = busy_actor()
    port = metrics.serve(0)
    try:
        took_s = []
        for _ in range(20):
            began = time.perf_counter()
            text = fetch(port, "/metrics")[1]
            took_s.append(time.perf_counter() - began)
    finally:
        metrics.close()
    series = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(series) < 200
    assert min(took_s) < 0.020  # what it costs, not what else the machine does


def test_what_runs_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_COMMIT", "0123abc")
    labels = build_labels(with_torch=False)
    assert labels["python"] == platform.python_version()
    assert labels["version"] == importlib.metadata.version("headrace")
    assert (labels["torch"], labels["commit"]) == ("", "0123abc")
    assert build_labels(with_torch=True)["torch"] == importlib.metadata.version("torch")
