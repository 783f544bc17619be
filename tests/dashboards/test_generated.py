"""The committed dashboard is what the generator makes, Grafana can read it, and it shows what we export."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from headrace.observe.bottleneck import ADVICE

from .board import DASHBOARD, EXPORTED, GRAFANA, dashboard, metrics_in, panels, recorded, rules, targets

#: Ids of Grafana's value formats that are used; the SDK takes any word.
UNITS = {"short", "none", "percentunit", "s", "bytes", "Bps", "watt", "celsius", "sci", "dateTimeAsIso",
         "suffix: versions", "suffix: steps", "suffix: cores", "suffix:x"}  # fmt: skip

#: Exported, and on no panel.
UNSHOWN = {
    "headrace_restarts_total": "counted by `headrace train`, which is not scraped; on a cluster the platform restarts, "
    "and the panel Restarts sees it in process_start_time_seconds",
    "headrace_actor_reward_mean": "there where rewards are shaped only, by names of one's own (docs/shaping.md)",
    "headrace_relay_questions_open": "there where relays are, which are not of compose or Kubernetes (docs/scale.md)",
    "process_virtual_memory_bytes": "says nothing of a process with torch or gRPC: address space is not memory",
}


def test_it_is_what_the_generator_makes(tmp_path: Path) -> None:
    made = tmp_path / "headrace.json"
    subprocess.run([sys.executable, GRAFANA / "generate.py", "--out", made], check=True, timeout=60)
    assert made.read_text() == DASHBOARD.read_text(), "run `make dashboards`"


def test_grafanas_own_types_read_it_whole() -> None:
    """What they do not know is dropped in silence: a round trip would lose it."""
    plugins.register_default_plugins()
    again = JSONEncoder(sort_keys=True, indent=2).encode(Dashboard.from_json(dashboard()))
    assert json.loads(again) == dashboard()


def test_identity_and_data_source() -> None:
    board = dashboard()
    assert board["uid"] == "headrace"
    assert board["schemaVersion"] >= 39
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == source["uid"] == "prometheus"
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/headrace.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_places_do_not_overlap() -> None:
    board = dashboard()
    assert [panel["id"] for panel in board["panels"]] == list(range(1, len(board["panels"]) + 1))
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel) -> None:
    assert len(panel["description"]) > 15
    assert panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert target["datasource"]["uid"] == "${datasource}"
        assert 'run=~"$run"' in target["expr"]
    options = [panel["fieldConfig"]["defaults"], *({p["id"]: p["value"] for p in o["properties"]}
               for o in panel["fieldConfig"]["overrides"])]  # fmt: skip
    units = {option["unit"] for option in options if "unit" in option}
    assert units
    assert units <= UNITS


def test_every_verdict_has_its_colour() -> None:
    bottleneck = next(panel for panel in panels() if panel["title"] == "Bottleneck")
    coloured = {override["matcher"]["options"] for override in bottleneck["fieldConfig"]["overrides"]}
    named = set(re.findall(r'"verdict", "([^"]+)"', recorded()["headrace:bottleneck:share1m"][0]))
    assert coloured == named | {rule["labels"]["verdict"] for rule in rules() if "verdict" in rule.get("labels", {})}
    assert coloured >= set(ADVICE)


def test_every_metric_of_an_expression_is_exported() -> None:
    used = {name for target in targets() for name in metrics_in(target.expression)}
    assert used <= EXPORTED


def test_every_exported_metric_is_on_a_panel_but_these() -> None:
    used = {name for target in targets() for name in metrics_in(target.expression)}
    assert EXPORTED - used == set(UNSHOWN)
    assert len(UNSHOWN) <= len(EXPORTED) / 10
