"""The recorded rules come to what observe/bottleneck.py says of the same run: its own cases, through promtool."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.common.metrics import Metrics
from headrace.observe.bottleneck import Verdict, judge
from tests.observe.test_bottleneck import CASES, FAST, observe, scraped, spend

from .board import RULES
from .server import promtool

SAMPLES, STEP_S = 60, 5
BLAMED = "count by (verdict) (headrace:bottleneck:share1m)"
WELL = {"learner_updates_total": 10.0, "learner_fragments_total": 20.0}


def verdict_of(case: str) -> Verdict:
    """As tests/observe/test_bottleneck.py comes to it."""
    _, learner_phases, actor_phases, slow = CASES[case]
    (published, publish_s), (acks, ack_s) = slow.get("publish", FAST), slow.get("ack", FAST)
    learner = observe(spend(Metrics("learner"), **learner_phases), "weights_publish_seconds", publish_s, published)
    learner.inc("learner_updates_total", 10)
    actor = observe(spend(Metrics("actor"), **actor_phases), "transport_ack_seconds", ack_s, acks)
    actor.inc("transport_blocked_seconds_total", actor_phases.get("put", 0.0) * 0.9)
    return judge([scraped(learner), scraped(actor), scraped(actor, 1)])


def series_of(case: str) -> dict[str, float]:
    """The same as growth in ten seconds, by series."""
    _, learner_phases, actor_phases, slow = CASES[case]
    (published, publish_s), (acks, ack_s) = slow.get("publish", FAST), slow.get("ack", FAST)
    found = {f'headrace_{name}{{instance="l"}}': growth for name, growth in WELL.items()}
    found |= {f'headrace_learner_phase_seconds_total{{phase="{p}",instance="l"}}': s for p, s in learner_phases.items()}
    found['headrace_weights_publish_seconds_sum{instance="l"}'] = published * publish_s
    for a in ("a", "b"):
        found |= {
            f'headrace_actor_phase_seconds_total{{phase="{p}",instance="{a}"}}': s for p, s in actor_phases.items()
        }
        found[f'headrace_transport_ack_seconds_sum{{instance="{a}"}}'] = acks * ack_s
        found[f'headrace_transport_blocked_seconds_total{{instance="{a}"}}'] = actor_phases.get("put", 0.0) * 0.9
    phases = {
        "learner": ("l", "wait", "assemble", "update", "publish", "checkpoint"),
        "actor": ("a", "lease", "env", "policy", "put"),
    }
    for role, (instance, *names) in phases.items():
        for each in [instance, "b"] if role == "actor" else [instance]:
            for phase in names:  # every phase is shown from the start
                found.setdefault(f'headrace_{role}_phase_seconds_total{{phase="{phase}",instance="{each}"}}', 0.0)
    return found


def check(folder: Path, growth: Mapping[str, float], gauges: Mapping[str, float], expected: Mapping[str, Any]) -> None:
    """``expected``: expression -> (labels, value)."""
    rising = [{"series": name, "values": f"0+{each * STEP_S / 10}x{SAMPLES}"} for name, each in growth.items()]
    flat = [{"series": name, "values": f"{value}x{SAMPLES}"} for name, value in gauges.items()]
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [
            {
                "interval": f"{STEP_S}s",
                "input_series": rising + flat,
                "promql_expr_test": [
                    {"expr": f"round({expression}, 0.001)", "eval_time": "4m",
                     "exp_samples": [{"labels": labels, "value": value}]}
                    for expression, (labels, value) in expected.items()
                ],
            }
        ],
    }  # fmt: skip
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtool(), "test", "rules", folder / "test.yml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


ROLES = {f'headrace_role_info{{role="{role}",instance="{i}"}}': 1.0 for role, i in
         (("learner", "l"), ("actor", "a"), ("actor", "b"), ("paramserver", "p"))}  # fmt: skip


def labels(**each: str) -> str:
    return "{" + ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(each.items())) + "}"


@pytest.mark.parametrize("case", CASES)
def test_shares_and_verdict(case: str, tmp_path: Path) -> None:
    verdict = verdict_of(case)
    shares = {
        f'sum by (part) (headrace:loop_part:share1m{{part="{part}"}})': (labels(part=part), round(share, 3))
        for part, share in verdict.parts.items()
    }
    check(tmp_path, series_of(case), ROLES, shares | {BLAMED: (labels(verdict=verdict.name), 1)})


def case_of(verdict: str) -> tuple[dict[str, float], dict[str, float]]:
    growth, gauges = series_of("slow actors"), dict(ROLES)
    match verdict:
        case "everything is refused":
            growth['headrace_learner_fragments_total{instance="l"}'] = 0.0
            growth['headrace_learner_rejected_total{reason="schema",instance="l"}'] = 3.0
        case "waiting for a worker":
            growth['headrace_learner_updates_total{instance="l"}'] = 0.0
            gauges['headrace_lease_oldest_seconds{instance="p"}'] = 41.0
        case "actors too few":
            growth = {name: each for name, each in growth.items() if "actor" not in name}
            gauges = {name: each for name, each in gauges.items() if "actor" not in name}
        case "not known yet":
            growth = {name: 0.0 for name in growth}
    return growth, gauges


@pytest.mark.parametrize(
    "verdict", ["everything is refused", "waiting for a worker", "actors too few", "not known yet"]
)
def test_trouble_comes_first(verdict: str, tmp_path: Path) -> None:
    growth, gauges = case_of(verdict)
    check(tmp_path, growth, gauges, {BLAMED: (labels(verdict=verdict), 1)})
