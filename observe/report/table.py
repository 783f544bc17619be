"""A report in a terminal: the figures beside their targets, then what they were measured against."""

from __future__ import annotations

import math
import os
from typing import TextIO

from headrace.observe.report.findings import SOURCES, Findings

_STYLES = {"reached": "green", "missed": "red", "unknown": "dim"}
#: Where there is no terminal nothing has to be folded.
_PLAIN_COLUMNS = 200


def show(findings: Findings, stream: TextIO) -> None:
    """Write the report to ``stream``, as wide as the terminal is (plain, and as wide as it likes, where it is none)."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    plain = not stream.isatty()
    console = Console(
        file=stream, no_color="NO_COLOR" in os.environ, width=_PLAIN_COLUMNS if plain else None, highlight=False
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, how in (("figure", "left"), ("value", "right"), ("target", "right"), ("", "left"), ("of", "left")):
        table.add_column(title, justify=how)  # type: ignore[arg-type]
    for figure in findings.figures():
        verdict = Text("not known" if figure.verdict == "unknown" else figure.verdict, _STYLES[figure.verdict])
        shown = "" if figure.value is None else figure.shown(figure.value)
        table.add_row(figure.title, shown, figure.target, verdict, Text(figure.note))
    console.print(Text(f"{findings.algorithm} on {findings.env}, {_seeds(findings)}", "bold"))
    console.print(table)
    for line in lines(findings):
        console.print(Text(line))


def lines(findings: Findings) -> list[str]:
    """What the figures rest on."""
    said = [
        f"target return {findings.target:g}: {findings.target_from}",
        f"floor {findings.floor:.1f}: {findings.floor_from}",
    ]
    for source in dict.fromkeys(seed.source for seed in findings.seeds):
        which = [str(seed.seed) for seed in findings.seeds if seed.source == source]
        said.append(f"judged by {SOURCES[source]} (seed {', '.join(which)})")
    finals = [f"{seed.final:.1f}" for seed in findings.seeds if seed.final is not None]
    if finals:
        said.append(f"greedy return of the newest weights: {', '.join(finals)}")
    unfinished = [f"seed {s.seed} at {s.env_steps:,} of {s.total_steps:,} steps"
                  for s in findings.seeds if s.env_steps < s.total_steps]  # fmt: skip
    if unfinished:
        said.append(f"not at its end: {', '.join(unfinished)}")
    if findings.adapted:
        said.append(f"changed environment: {findings.change}; the goal is {findings.goal_from}")
    for adapted in findings.adapted:
        first = f"{adapted.curve[0].mean:.1f}" if adapted.curve else "not known"
        back = "not back" if math.isinf(adapted.steps) else f"back after {adapted.steps:,.0f} steps"
        said.append(
            f"seed {adapted.seed}: {adapted.before:.1f} before the change, {first} after it, {back}"
            f" (goal {adapted.goal:.1f})"
        )
    return said


def _seeds(findings: Findings) -> str:
    seeds = [str(seed.seed) for seed in findings.seeds]
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(seeds)})"
