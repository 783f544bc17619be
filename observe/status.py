"""headrace status RUN, --url http://host:port, or both: which part holds the run up, and how every role is.

    endpoints/*.json or --url -> two scrapes of all roles, a window apart -> bottleneck.judge -> a line for each role

Also tells when a role is dead (which one, and whether its process is gone) and how a finished run ended.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.common.errors import UsageError

if TYPE_CHECKING:
    from headrace.observe.rows import Row
    from headrace.observe.scrape import Scrape

#: The role's version, and what it lags behind by: gauges as each role shows them.
VERSION = {"actor": "actor_policy_version", "learner": "learner_policy_version", "paramserver": "weights_version",
           "relay": "weights_version"}  # fmt: skip
_WINDOW_S = 1.0
STEPS = {"actor": "actor_env_steps_total", "learner": "learner_env_steps_total"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Name the bottleneck of a run and show every role. Exit code 1 where a role of it is dead."
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--url", action="append", default=[],
        help="ask the role at http://host:port (may be repeated), or the Prometheus there that scrapes all of them",
    )  # fmt: skip
    parser.add_argument(
        "--window", type=float, metavar="S", help="seconds between two looks (default 1; through a Prometheus 30)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    report = examine(args.run, args.url, args.window)
    print(json.dumps(report, indent=2) if args.json else "\n".join(_lines(report)))
    return 1 if report["state"] in ("degraded", "stopped", "unknown") else 0


def examine(run_dir: Path | None, urls: Sequence[str], window_s: float | None = None) -> dict[str, Any]:
    """The whole report, ready for JSON. ``state``: running, degraded (a role is dead), stopped, finished, or
    unknown (nobody answers at the addresses)."""
    from headrace.observe import endpoints, prometheus, rows, scrape, trouble
    from headrace.observe.bottleneck import judge

    if run_dir is None and not urls:
        raise UsageError("headrace status: give a run directory, or --url http://host:port (once or more)")
    known = [scrape.endpoint_of(url) for url in urls] if run_dir is None or urls else endpoints.read(run_dir)
    last = None if run_dir is None or not run_dir.is_dir() else rows.last_row(run_dir / "metrics.jsonl")
    if not known and last is None:
        raise UsageError(f"{run_dir}: no run (no endpoints/, no metrics.jsonl); give a folder made by `headrace train`")
    if len(urls) == 1 and prometheus.answers(urls[0]):
        before, after = prometheus.looks(urls[0], window_s or prometheus.WINDOW_S)
        if not after:
            raise UsageError(f"Prometheus at {urls[0]} scrapes no role of ours")
    else:
        before = after = scrape.scrape(known)
        if any(s.up for s in before):
            time.sleep(_WINDOW_S if window_s is None else window_s)
            after = scrape.scrape(known)
    said = {} if run_dir is None else trouble.last_words(run_dir)
    verdict = judge(after, before, said)
    return {
        "state": _state(after, last, run_dir),
        "bottleneck": verdict.as_json(),
        "last_row": last,
        "roles": [_role(b, a, after, said) for b, a in zip(before, after, strict=True)],
    }


def _state(scrapes: Sequence[Scrape], last: Row | None, run_dir: Path | None) -> str:
    if any(s.up for s in scrapes):
        return "running" if all(s.up for s in scrapes) else "degraded"
    if last is None and scrapes and not any(s.endpoint.role for s in scrapes):
        return "unknown"  # addresses alone do not tell a run that ended from one that cannot be reached
    done = last is not None and last["env_steps"] >= last["total_steps"]
    return "finished" if done or _solved(run_dir) else "stopped"


def _solved(run_dir: Path | None) -> bool:
    """Whether the run ended before its steps were used up, because its task was solved."""
    if run_dir is None:
        return False
    try:
        return bool(json.loads((run_dir / "result.json").read_bytes()).get("ended_by") == "solved")
    except (OSError, ValueError, AttributeError):
        return False


def _role(before: Scrape, after: Scrape, all_after: Sequence[Scrape], said: Mapping[str, str]) -> dict[str, Any]:
    at = after.endpoint
    report: dict[str, Any] = {"role": at.role, "index": at.index, "pid": at.pid, "metrics": at.metrics, "up": after.up}
    if not after.up:
        last_words = said.get(f"{at.role}-{at.index}", "")
        return report | {"error": after.error, "process": _process(at.pid), "last_words": last_words}
    newest = max(int(max(s.value(VERSION["learner"]), s.value(VERSION["paramserver"]))) for s in all_after)
    version = int(after.value(VERSION[at.role])) if at.role in VERSION else None
    steps = STEPS.get(at.role, "")
    elapsed_s = after.time_s - before.time_s
    gained = after.value(steps) - before.value(steps)
    report |= {
        "up_seconds": round(after.value("up_seconds"), 1),
        "steps_per_s": round(gained / elapsed_s, 1) if steps and before.up and gained >= 0 else None,
        "version": version,
        "lag_versions": None if version is None else max(0, newest - version),
        "phases": _phases(before, after, f"{at.role}_phase_seconds_total"),
    }
    if at.role == "learner":
        report["lag_records"] = int(sum(after.by_label("transport_lag_records").values()))
        report["rejected"] = {k: int(v) for k, v in after.by_label("learner_rejected_total").items() if v}
    if at.role in ("paramserver", "relay"):
        report["subscribers"] = int(after.value("weights_subscribers"))
    return report


def _phases(before: Scrape, after: Scrape, name: str) -> dict[str, float]:
    """The role's split of its time within the window; since its start where nothing ended within the window."""
    old, new = before.by_label(name), after.by_label(name)
    spent_s = {phase: value - old.get(phase, 0.0) for phase, value in new.items()}
    if min(spent_s.values(), default=0) < 0 or not any(spent_s.values()):
        spent_s = new
    total_s = sum(spent_s.values())
    return {phase: round(value / total_s, 3) for phase, value in spent_s.items()} if total_s else {}


def _process(pid: int) -> str:
    """Whether the process is still there, where that can be known from here."""
    if not pid:
        return "unknown"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return "alive"


def _lines(report: dict[str, Any]) -> list[str]:
    dead = [r for r in report["roles"] if not r["up"]]
    last = report["last_row"]
    if report["state"] in ("running", "degraded"):
        head = report["bottleneck"]["sentence"]
    elif report["state"] == "finished":
        head = "finished"
    elif report["state"] == "unknown":
        head = "nobody answers at the addresses given; whether the run goes on cannot be told from here"
    else:
        head = "stopped before its end; `headrace train --resume --run-dir RUN` goes on from the last checkpoint"
    lines = [head]
    if last is not None:
        ret = "-" if last["return_mean"] is None else f"{last['return_mean']:.1f}"
        lines.append(
            f"{last['env_steps']:,} of {last['total_steps']:,} steps in {last['time_s']:.0f} s, return {ret}, "
            f"version {last['version']}, {last['steps_per_s']:,.0f} steps/s, {last['episodes']:,} episodes"
        )
    if report["state"] in ("finished", "stopped"):
        return lines
    for r in dead:
        words = f": {r['last_words']}" if r["last_words"] else ""
        lines.append(f"dead: {r['role'] or r['metrics']} {r['index']} ({r['error']}; process {r['process']}){words}")
    return [*lines, "", *_table(report["roles"])]


def _table(roles: Sequence[dict[str, Any]]) -> list[str]:
    rows = [("role", "state", "pid", "steps/s", "version", "behind", "time split")]
    for r in roles:
        phases = "  ".join(f"{k} {v:.0%}" for k, v in r.get("phases", {}).items())
        if r.get("rejected"):
            phases += "  rejected: " + ", ".join(f"{k} {v}" for k, v in r["rejected"].items())
        if r.get("subscribers") is not None:
            phases = f"{r['subscribers']} subscribers"
        rate = "" if r.get("steps_per_s") is None else f"{r['steps_per_s']:,.0f}"
        behind = "" if r.get("lag_versions") is None else f"{r['lag_versions']}"
        if r.get("lag_records"):
            behind += f" ({r['lag_records']} records)"
        version = "" if r.get("version") is None else str(r["version"])
        state = "up" if r["up"] else "dead"
        rows.append((f"{r['role'] or '?'}-{r['index']}", state, str(r["pid"] or "-"), rate, version, behind, phases))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
