"""The tables in docs/scale.md, made anew from what stands in bench/results/scale.json.

python bench/scale_page.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scale_costs import Costs, kept
from scale_model import Cluster, Prediction, actors_at_most, predict

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "scale.md", ROOT / "bench" / "results"
BEGIN, END = "<!-- made by bench/scale_page.py: {} -->", "<!-- end -->"
#: What is compared, as a reader calls it.
COMPARED = {
    "next_calls": "lease calls/s",
    "beats": "heartbeats/s",
    "calls": "all calls/s at the root",
    "weight_bytes": "bytes/s of weights",
    "fragment_bytes": "bytes/s of fragments",
    "fragments": "fragments/s into the learner",
    "server_cores": "cores of the parameter server",
    "learner_cores": "cores of the learner's intake",
    "broker_cores": "cores of the broker",
}
SIZES, FAN_OUT = (10, 100, 1_000, 10_000), 128


def table(costs: Costs) -> str:
    """docs/scale.md's: the default cluster of each size, flat and through relays."""
    work = ["| actors | environment steps/s | fragments/s | MB/s of fragments | partitions | intake, cores |"]
    weights = ["| actors | relays | calls/s at the root | MB/s of weights from it | its cores | tightest, flat "
               "| tightest, with relays |"]  # fmt: skip
    work.append("|" + "---|" * 6)
    weights.append("|" + "---|" * 7)
    for actors in SIZES:
        flat, tree = predict(Cluster(actors), costs), predict(Cluster(actors, fan_out=FAN_OUT), costs)
        root, below, learner = flat.hops["root"], tree.hops["root"], flat.hops["learner"]
        work.append(
            f"| {actors:,} | {flat.steps_per_s:,.0f} | {flat.fragments_per_s:,.1f} "
            f"| {learner.bytes_in_per_s / 1e6:,.1f} | {flat.partitions} | {learner.cores:.2f} |"
        )
        weights.append(
            f"| {actors:,} | {tree.relays:,} | {root.calls_per_s:,.0f} -> {below.calls_per_s:,.0f} "
            f"| {root.bytes_out_per_s / 1e6:,.1f} -> {below.bytes_out_per_s / 1e6:,.1f} "
            f"| {root.cores:.2f} -> {below.cores:.2f} | {_tightest(flat)} | {_tightest(tree)} |"
        )
    short, long = Cluster(1), Cluster(1, fragment_steps=4 * Cluster(1).fragment_steps)
    fill = [[actors_at_most(replace(one, fan_out=n), costs) for n in (0, FAN_OUT)] for one in (short, long)]
    ends = (
        f"Everything else being so, {fill[0][0]:,} actors fill the tightest part of a flat cluster, {fill[0][1]:,} "
        f"that of one with relays;\nwith fragments of {long.fragment_steps} steps {fill[1][0]:,} and {fill[1][1]:,}."
    )
    return "\n".join([*work, "", *weights, "", ends])


def _tightest(found: Prediction) -> str:
    name, what, share = found.tightest
    return f"{name}, {what}: {share:.0%}"


def accuracy(compared: Sequence[Mapping[str, Any]], flat_out: Mapping[str, Mapping[str, Any]]) -> str:
    """How far the model is off at each size, over the carriers; and where the learner gets all that eight can give."""
    sizes = sorted({row["actors"] for row in compared})
    lines = ["| foreseen over measured | " + " | ".join(f"{n} actors" for n in sizes) + " |"]
    lines.append("|" + "---|" * (1 + len(sizes)))
    for name, called in COMPARED.items():
        off = [[row["off"][name] for row in compared if row["actors"] == n and name in row["off"]] for n in sizes]
        lines.append(f"| {called} | " + " | ".join(f"{_percent(min(x))} to {_percent(max(x))}" for x in off) + " |")
    lines += ["", "| as fast as eight actors can | records/s | MB/s | cores of the learner's intake | foreseen |"]
    lines.append("|" + "---|" * 5)
    for carrier, row in flat_out.items():
        seen = row["measured"]
        lines.append(
            f"| {carrier} | {seen['fragments']:,.0f} | {seen['fragment_bytes'] / 1e6:,.0f} "
            f"| {seen['learner_cores']:.2f} | {row['learner_cores']:.2f} |"
        )
    return "\n".join(lines)


def fan_out(results: Path) -> str:
    """What bench/fanout.py measured, flat and through relays."""
    lines = [
        "| 1,000 subscribers | newest version, s: p50 | p99 | max | MB a version from the root | its CPU s a version "
        "| lease + heartbeat calls/s | cores of the root |",
        "|" + "---|" * 8,
    ]
    for ending in ("", "-relays"):
        follow, act = (json.loads((results / f"fanout{kind}{ending}.json").read_text()) for kind in ("", "-actors"))
        assert follow["subscribers"] == act["subscribers"] == 1000
        name = f"through {follow['relays']} relays" if ending else "flat"
        seconds, root, calls = follow["seconds"], follow["root"], act["parents"]
        lines.append(
            f"| {name} | {seconds['p50']:.2f} "
            f"| {seconds['p99']:.2f} | {seconds['max']:.2f} | {root['weight_bytes_a_version'] / 1e6:,.1f} "
            f"| {root['cpu_s_a_version']:.2f} | {calls['lease_calls_a_second']:,.0f} + "
            f"{calls['heartbeat_calls_a_second']:,.0f} | {act['root']['cores']:.2f} |"
        )
    return "\n".join(lines)


def written(page: str, found: Mapping[str, Any]) -> str:
    """``page`` with the tables as they are now, each between its marks."""
    tables = {
        "sizes": table(Costs.read(found["costs"])),
        "fan-out": fan_out(RESULTS),
        "accuracy": accuracy(found["compared"], found["flat_out"]),
    }
    for name, text in tables.items():
        begin = BEGIN.format(name)
        before, mark, rest = page.partition(begin)
        assert mark, f"{PAGE.name} has no {begin}"
        page = f"{before}{begin}\n\n{text}\n\n{END}{rest.partition(END)[2]}"
    return page


def _percent(off: float) -> str:
    return f"{off + 0.0:+.0%}" if round(off, 2) else "0%"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), kept()))
