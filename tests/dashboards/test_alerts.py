"""Rules that Prometheus reads, alerts that fire and clear, runbooks that exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from .board import EXPORTED, ROOT, RULES, metrics_in, rules
from .server import promtool

CASES = Path(__file__).with_name("alerts_test.yml")
ALERTS = [rule for rule in rules() if "alert" in rule]


def test_prometheus_reads_them() -> None:
    done = subprocess.run([promtool(), "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_fires_and_clears() -> None:
    done = subprocess.run([promtool(), "test", "rules", CASES], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_none_is_left_out_of_that() -> None:
    tests = [case for group in yaml.safe_load(CASES.read_text())["tests"] for case in group["alert_rule_test"]]
    for alert in ALERTS:
        its = [bool(case.get("exp_alerts")) for case in tests if case["alertname"] == alert["alert"]]
        assert its[0] is False, f"{alert['alert']}: well before"
        assert True in its, f"{alert['alert']}: it fires"
        assert False in its[its.index(True) :], f"{alert['alert']}: it clears"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do(alert: Mapping[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"warning", "critical"}
    page, _, section = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert section in [heading.lower().replace(" ", "-") for heading in headings]
    assert section == alert["alert"].lower()
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"].endswith(".")
    assert metrics_in(alert["expr"]) <= EXPORTED


def test_no_runbook_without_an_alert() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert headings == [alert["alert"] for alert in ALERTS]
