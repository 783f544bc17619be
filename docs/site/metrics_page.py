"""docs/metrics.md from the table that every role's /metrics is made of (common/metrics_table.py)."""

from __future__ import annotations

import dataclasses

from headrace.common.metrics_table import PREFIX, SHOWN, TABLE, Metric

_HEAD = """# Metrics

Made from `common/metrics_table.py` by `make pages`; a test holds the two together. Every role serves these at
`http://HOST:PORT/metrics` for Prometheus (`--metrics-host` and `--metrics-port` of a role; under `headrace train` any
free port of this machine, named in the run's `endpoints/`), and prometheus-client adds its own of the process
(`process_cpu_seconds_total`, `process_resident_memory_bytes`, ...). A histogram has three series, `_bucket`, `_sum` and
`_count`. What to make of them: [the dashboard](dashboard.md), [alerts](alerts.md). What a run keeps on disk every
second, `metrics.jsonl`, is in [commands and run directories](reference.md#metricsjsonl).
"""

#: Heading -> the beginnings of the names it holds, in the order of the page.
GROUPS: dict[str, tuple[str, ...]] = {
    "Every role": ("role_", "build_", "up_", "restarts_"),
    "Actors": ("actor_",),
    "Carriers": ("transport_",),
    "Learner": ("learner_",),
    "The learner's GPU": ("gpu_",),
    "Checkpoints": ("checkpoint_",),
    "Evaluators": ("evaluator_",),
    "Weights, leases and relays": ("weights_", "relay_", "leases_", "lease_"),
}


def written() -> str:
    """The page. Raises ValueError for a metric that belongs under no heading."""
    lines, left = [_HEAD], list(TABLE)
    for heading, beginnings in GROUPS.items():
        rows = [metric for metric in left if metric.name.startswith(beginnings)]
        left = [metric for metric in left if metric not in rows]
        lines += [f"## {heading}\n", "| metric | kind | labels | what it says |", "|---|---|---|---|"]
        lines += [_row(metric) for metric in rows] + [""]
    if left:
        raise ValueError(f"no heading of docs/metrics.md is for {', '.join(metric.name for metric in left)}")
    lines += ["## What a role shows from its start on\n", "| role | metrics that begin with |", "|---|---|"]
    lines += [f"| {role} | {', '.join(f'`{PREFIX}{name}`' for name in names)} |" for role, names in SHOWN.items()]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    values = f": {', '.join(f'`{value}`' for value in metric.values)}" if metric.values else ""
    labels = ", ".join(f"`{label}`" for label in metric.labels) + values
    buckets = f" (buckets to {metric.buckets[-1]:,g})" if metric.buckets else ""
    said = dataclasses.replace(metric, help=metric.help.replace("|", "\\|")).help
    return f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels} | {said}{buckets} |"
