"""Ours and others on LunarLander, one after another on this machine with nothing else running.

    every repeat: every contestant in turn, in its own process -> bench/results/NAME.json -> docs/NAME.md (--table)

Ratios are taken within one repeat, against the same seed's run of the base contestant; figures are medians of repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from contestants import CONTESTANTS, Race
from hardware import RESULTS, ROOT, relative, save

#: Longest a single run may take; as shipped, Stable-Baselines3 needs minutes.
RUN_S = 3600.0


def race_all(names: list[str], repeats: int, steps: int, threshold: float | None) -> list[dict[str, Any]]:
    """One row a run: contestant, repeat, what it reported, the command and the load average it started under."""
    for name in names:
        CONTESTANTS[name].argv(Race(steps, 0, threshold, Path()))  # makes its environment before any clock runs
    rows = []
    for repeat in range(repeats):
        for name in names:
            load = settle()
            with tempfile.TemporaryDirectory() as folder:
                row = run_one(name, Race(steps, repeat + 1, threshold, Path(folder)))
            rows.append({"contestant": name, "repeat": repeat, "load_average_before": load, **row})
            print(f"[{repeat + 1}/{repeats}] {name}: {describe(row)}", flush=True)
    return rows


def settle(patience_s: float = 60.0) -> float:
    """Wait until nothing else runs, at most ``patience_s``; warns if something still does. Returns the load average."""
    deadline = time.monotonic() + patience_s
    while (busy := busy_others()) and time.monotonic() < deadline:
        time.sleep(1)
    if busy:
        print("warning: something else is running; figures will be too low", file=sys.stderr, flush=True)
    return round(os.getloadavg()[0], 2)


def busy_others(samples: int = 20, pause_s: float = 0.05) -> bool:
    """Whether, over a second, more than this process was on a CPU or waiting for one in half of the samples or more."""
    seen = 0
    for _ in range(samples):
        seen += int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) > 1
        time.sleep(pause_s)
    return 2 * seen >= samples


def run_one(name: str, race: Race) -> dict[str, Any]:
    """Run one contestant; a failure becomes a row with ``error``, so that the others' figures are not lost."""
    contestant = CONTESTANTS[name]
    argv, log = list(contestant.argv(race)), race.folder / "log"
    row: dict[str, Any] = {"command": " ".join(relative(word) for word in argv)}
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(RUN_S)
            error = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            error = f"not done after {RUN_S:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if error:
        print(log.read_text(errors="replace")[-3000:], file=sys.stderr, flush=True)
        return {**row, "error": error}
    result = contestant.parse(race)
    result.pop("options", None)
    result.get("to_greedy", {}).pop("curve", None)
    return {**row, **result}


def describe(row: dict[str, Any]) -> str:
    if "error" in row:
        return str(row["error"])
    text = f"{row['steps_per_s']:,.0f} steps/s"
    if found := row.get("to_greedy"):
        text += f", greedy {found['greedy_mean']:.0f} after {found['steps']:,} steps, {found['time_s']:.1f} s"
    return text


def summary(rows: list[dict[str, Any]], base: str) -> list[dict[str, Any]]:
    """Per contestant: medians, and medians of the ratios to ``base`` within each repeat (above 1: base is faster)."""
    good = {(r["contestant"], r["repeat"]): r for r in rows if "error" not in r}
    found = []
    for name in dict.fromkeys(r["contestant"] for r in rows):
        mine = {repeat: row for (who, repeat), row in good.items() if who == name}
        passed = {k: r["to_greedy"] for k, r in mine.items() if r.get("to_greedy", {}).get("passed")}
        based = {k: good[base, k] for k in mine if (base, k) in good}
        times = {k: r["to_greedy"]["time_s"] for k, r in based.items() if r.get("to_greedy", {}).get("passed")}
        asked = any("to_greedy" in r for r in mine.values())
        found.append({
            "contestant": name,
            "runs": len(mine),
            "failed": sum(r["contestant"] == name and "error" in r for r in rows),
            "steps_per_s": _median(r["steps_per_s"] for r in mine.values()),
            "base_steps_per_s_ratio": _median(based[k]["steps_per_s"] / mine[k]["steps_per_s"] for k in based),
            "passed": len(passed) if asked else None,
            "steps_to_greedy": _median(p["steps"] for p in passed.values()),
            "seconds_to_greedy": _median(p["time_s"] for p in passed.values()),
            "base_time_ratio": _median(passed[k]["time_s"] / times[k] for k in passed if k in times),
        })  # fmt: skip
    return found


def _median(values: Any) -> float | None:
    kept = list(values)
    return median(kept) if kept else None


def table(payload: dict[str, Any]) -> str:
    """The page for docs/: where and how it was measured, then a row a contestant."""
    hardware, base = payload["hardware"], payload["base"]
    versions = ", ".join(f"{k} {v}" for k, v in hardware["versions"].items())
    threshold = payload["threshold"]
    lines = [
        "# Side by side on LunarLander",
        "",
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['ram_gib']:.0f} GiB; Python {hardware['python']}, "
        f"{versions}; commit {hardware['commit'][:12]}, {hardware['date'][:10]}.",
        f"Made by `{hardware['command']}`: {payload['repeats']} repeats of {payload['steps']:,} steps, one contestant "
        "after another, medians; ratios are medians of the ratios within each repeat.",
        "",
        *(["Greedy: the first weight snapshot (every 25,000 steps) whose arg-max policy has a mean return of at least "
           f"{threshold:g} over 20 unseen episodes, the same for all; evaluation is not part of the time.", ""]
          if threshold is not None else []),
        f"| | steps/s | {base} is faster by | reached | steps to greedy | seconds to greedy | {base} is sooner by |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in payload["summary"]:
        title = CONTESTANTS[row["contestant"]].title if row["contestant"] in CONTESTANTS else row["contestant"]
        reached = "" if row["passed"] is None else f"{row['passed']} of {row['runs']}"
        cells = [
            title + (f" ({row['failed']} failed)" if row["failed"] else ""),
            _cell(row["steps_per_s"], "{:,.0f}"),
            _cell(row["base_steps_per_s_ratio"], "{:.2f}x"),
            reached,
            _cell(row["steps_to_greedy"], "{:,.0f}"),
            _cell(row["seconds_to_greedy"], "{:.1f}"),
            _cell(row["base_time_ratio"], "{:.2f}x"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contestants", nargs="*", metavar="NAME", help=f"of {', '.join(CONTESTANTS)} (default: all)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--threshold", type=float, default=200.0, metavar="R")
    parser.add_argument("--throughput", action="store_true", help="steps/s only, no evaluation")
    parser.add_argument("--base", default="headrace", help="whom the ratios are against")
    parser.add_argument("--name", default="side_by_side", help="of the file in bench/results")
    parser.add_argument("--table", action="store_true", help="only write docs/NAME.md from the JSON that is there")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the contestant ends with us
    page = ROOT / "docs" / f"{args.name.replace('_', '-')}.md"
    if not args.table:
        names = args.contestants or list(CONTESTANTS)
        if unknown := [name for name in [*names, args.base] if name not in CONTESTANTS]:
            parser.error(f"no contestant {unknown[0]!r}; there are {', '.join(CONTESTANTS)}")
        base = args.base if args.base in names else names[0]
        threshold = None if args.throughput else args.threshold
        rows = race_all(names, args.repeats, args.steps, threshold)
        asked = {"steps": args.steps, "repeats": args.repeats, "threshold": threshold, "base": base}
        save(args.name, {**asked, "summary": summary(rows, base), "runs": rows})
    payload = json.loads((RESULTS / f"{args.name}.json").read_text())
    page.parent.mkdir(exist_ok=True)
    page.write_text(table(payload))
    print(page.read_text())
    return 1 if any("error" in row for row in payload["runs"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
