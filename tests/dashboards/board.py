"""The committed dashboard and rules, as tests look at them: panels, their expressions, the metrics in those."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headrace.common.metrics_table import PREFIX, TABLE

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "headrace.json"
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
#: What prometheus-client measures of every process.
PROCESS = (
    "cpu_seconds_total",
    "resident_memory_bytes",
    "virtual_memory_bytes",
    "start_time_seconds",
    "open_fds",
    "max_fds",
)
EXPORTED = frozenset({PREFIX + row.name for row in TABLE} | {f"process_{name}" for name in PROCESS})

#: Panels that a PPO run through Kafka on a machine without a GPU, in which nothing fails, rightly leaves empty.
EMPTY_PANELS = {
    "GPU": "no GPU here",
    "GPU memory": "no GPU here",
    "GPU power and temperature": "no GPU here",
    "Errors of the carrier": "kinds of errors are shown once they happen",
}


@dataclass(frozen=True)
class Target:
    """One expression of a panel."""

    panel: str
    ref: str
    expression: str
    instant: bool

    @property
    def name(self) -> str:
        return f"{self.panel}-{self.ref}"


@functools.cache
def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[Any]:
    """Those that draw something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def targets() -> list[Target]:
    return [
        Target(panel["title"], target["refId"], interpolate(target["expr"]), bool(target.get("instant")))
        for panel in panels()
        for target in panel["targets"]
    ]


def interpolate(expression: str, rate_interval: str = "10s") -> str:
    """As Grafana does, with All for the run."""
    return expression.replace("$__rate_interval", rate_interval).replace("$run", ".*")


@functools.cache
def rules() -> list[Mapping[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@functools.cache
def recorded() -> dict[str, list[str]]:
    """The expressions behind each recorded metric."""
    found: dict[str, list[str]] = {}
    for rule in rules():
        if "record" in rule:
            found.setdefault(rule["record"], []).append(rule["expr"])
    return found


def metrics_in(expression: str) -> set[str]:
    """The exported metrics an expression reads, through the recorded ones too."""
    behind, todo, seen = recorded(), [expression], set[str]()
    while todo:
        for name in set(re.findall(r"\b(?:headrace|process)[_:][a-z0-9_:]+", todo.pop())) - seen:
            seen.add(name)
            todo += behind.get(name, [])
    direct = seen - set(behind)
    return {name if name in EXPORTED else re.sub(r"_(bucket|sum|count)$", "", name) for name in direct}


def without_comparison(expression: str) -> str:
    """What an alert compares: the expression up to its conditions, without bounds."""
    head = re.split(r"^\s*(?:and|unless)\b", expression, flags=re.MULTILINE)[0]
    return re.sub(r"\s*(?:==|!=|>=|<=|>|<)\s*[\d.]+", "", head)
