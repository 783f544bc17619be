"""Every expression of every panel and of every alert gets data from a real system."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from headrace.observe import status

from .board import EMPTY_PANELS, ROOT, Target, rules, targets, without_comparison
from .live import Live, live

pytestmark = pytest.mark.timeout(300)

#: Alerts whose expression has nothing to say of a run in which nothing fails.
EMPTY_ALERTS = {"CarrierErrors": "kinds of errors are shown once they happen"}


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_panels_expression_gets_data(system: Live, target: Target) -> None:
    if target.instant:
        values = [value for _, value in system.prometheus.now(target.expression)]
    else:
        values = [v for _, curve in system.prometheus.lately(target.expression, 20) for _, v in curve]
    if target.panel not in EMPTY_PANELS:
        assert any(map(math.isfinite, values)), target.expression


@pytest.mark.parametrize("alert", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alerts_expression_gets_data(system: Live, alert) -> None:
    found = system.prometheus.now(without_comparison(alert["expr"]))
    assert found or alert["alert"] in EMPTY_ALERTS, without_comparison(alert["expr"])


def test_nothing_fires_where_all_is_well(system: Live) -> None:
    firing = [labels["alertname"] for labels, _ in system.prometheus.now('ALERTS{alertstate="firing"}')]
    assert firing == []


def test_recorded_rules_get_data(system: Live) -> None:
    names = {rule["record"] for rule in rules() if "record" in rule}
    assert {name for name in names if system.prometheus.now(name)} == names


SLOWED = {
    "actors too few": ("task.env=tests.tasks.bad_envs:Slow-v0", "task.kwargs.step_s=0.005"),
    "learner too slow": ("algorithm.epochs=100", "algorithm.minibatch=16"),
}


@pytest.mark.parametrize("verdict", SLOWED)
def test_the_first_row_names_what_was_slowed_and_so_does_status(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    bottleneck = next(target.expression for target in targets() if target.panel == "Bottleneck")
    with live(tmp_path, kafka_bootstrap, *SLOWED[verdict]) as slowed:
        slowed.wait_for("headrace_learner_updates_total > 3")
        for who, says in {
            "the dashboard": lambda: [labels["verdict"] for labels, _ in slowed.prometheus.now(bottleneck)],
            "status": lambda: [status.examine(None, [slowed.prometheus.url], 10)["bottleneck"]["name"]],
        }.items():
            slowed.run.wait_until(lambda says=says: says() == [verdict], f"{who} says {verdict}")
