"""Tables of docs/ that stand between `<!-- results: NAME ... -->` and `<!-- /results -->`: the figures of
bench/results/NAME.json, and the commands that measured them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PLACE = re.compile(r"(<!-- results: ([\w -]+) -->\n)(.*?)(<!-- /results -->)", re.S)
_HEAD = """| trained | steps | seeds | greedy mean over seeds | spread | worst seed | untrained | seconds | steps/s |
|---|---:|---:|---:|---:|---:|---:|---:|---:|"""


def written(text: str) -> str:
    """``text`` of a page, its tables made anew."""
    return _PLACE.sub(lambda place: place[1] + _table(place[2].split()) + place[4], text)


def _table(names: list[str]) -> str:
    kept = {name: json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text()) for name in names}
    rows = [_row(found, carrier, figures) for found in kept.values() for carrier, figures in found["summary"].items()]
    sources = [_source(name, found["hardware"]) for name, found in kept.items()]
    return "\n".join(["", _HEAD, *rows, "", *sources, ""])


def _row(found: dict[str, Any], carrier: str, figures: dict[str, Any]) -> str:
    settings = [word for word in found["overrides"] if not word.startswith("task.env=")]
    what = f"`{found['preset']}`" + "".join(f" `{word}`" for word in settings)
    steps = round(found["runs"][0]["steps"], -4)
    return (
        f"| {what} on {found['env']}{' through Kafka' if carrier == 'kafka' else ''} | {steps:,} | {figures['seeds']} "
        f"| **{figures['mean_over_seeds']:,.1f}** | {figures['spread_over_seeds']:,.1f} | {figures['worst_seed']:,.1f} "
        f"| {figures['untrained_mean']:,.1f} | {figures['train_s_mean']:,.0f} | {figures['steps_per_s_mean']:,} |"
    )


def _source(name: str, hardware: dict[str, Any]) -> str:
    return (
        f"- `{hardware['command']}`: {hardware['cpu']}, {hardware['cores']} cores, "
        f"torch {hardware['versions']['torch']}, commit {hardware['commit'][:7]}, {hardware['date'][:10]}; "
        f"`bench/results/{name}.json`"
    )
