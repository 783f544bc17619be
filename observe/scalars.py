"""Rows and evaluations as named numbers: what TensorBoard and the trackers show, under the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.observe.rows import Row


def scalars(row: Row) -> Iterator[tuple[str, float]]:
    """The tags a row becomes, and their values; what is null is left out."""
    single = {
        "episodes/return_mean": row["return_mean"],
        "episodes/return_std": row.get("return_std"),
        "episodes/length_mean": row["length_mean"],
        "episodes/finished": row["episodes"],
        "speed/steps_per_s": row["steps_per_s"],
        "speed/version": row["version"],
        "staleness/mean": row["staleness_mean"],
        "staleness/max": row["staleness_max"],
        "replay/fill": row.get("replay_fill"),
    }
    groups: dict[str, Mapping[str, float | None]] = {name: row[name] for name in ("rejected", "phases", "train")}
    groups["acting"] = row.get("acting", {})
    yield from ((tag, float(value)) for tag, value in single.items() if value is not None)
    for group, values in groups.items():
        yield from ((f"{group}/{name}", float(value)) for name, value in values.items() if value is not None)


def evaluation_scalars(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The same of a line of evaluations.jsonl."""
    yield "evaluation/return_mean", float(found["mean"])
    if found["interval95"] is not None:
        yield "evaluation/interval95", float(found["interval95"])
