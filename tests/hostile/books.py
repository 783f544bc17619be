"""Whether a run's books are plausible after an attack: metrics.jsonl and the newest checkpoint's counters."""

from __future__ import annotations

import itertools
import math

from .roles import FRAGMENTS, STEPS_A_VERSION, Run

LONGEST_EPISODE = 500


def check(run: Run, hostile_leases: int = 100_000) -> None:
    """Every version was made from exactly its fragments, none too old; no counter holds what a stranger claimed."""
    rows = run.rows()
    assert rows
    for row in rows:
        where = f"in {row}"
        assert row["env_steps"] == row["version"] * STEPS_A_VERSION, f"steps that no version consumed {where}"
        assert row["staleness_max"] <= 1, f"staleness beyond the bound {where}"
        assert 0 <= row["episodes"] <= row["env_steps"], f"more episodes than steps {where}"
        assert all(isinstance(n, int) and 0 <= n < 2**31 for n in row["rejected"].values()), where
        for key in ("return_mean", "length_mean", "steps_per_s", "staleness_mean"):
            value = row[key]
            assert value is None or (math.isfinite(value) and value < 1e6), f"{key} is not plausible {where}"
        assert row["length_mean"] is None or row["length_mean"] <= LONGEST_EPISODE, f"episodes too long {where}"
    lives = [row["version"] for row in rows]
    assert sum(b < a for a, b in itertools.pairwise(lives)) < run.epochs, "versions went back within a life"
    checkpoint(run, hostile_leases)


def checkpoint(run: Run, hostile_leases: int) -> None:
    """The counters that the next life of the learner will start from."""
    info = run.info()
    counters = info["counters"]
    assert counters["fragments"] == counters["version"] * FRAGMENTS, info
    assert counters["env_steps"] == counters["version"] * STEPS_A_VERSION, info
    assert info["run_id"] == run.id
    assert info["learner_epoch"] == run.epochs, info
    refused = sum(counters["rejected"].values())
    assert counters["fragments"] <= info["issued"] <= counters["fragments"] + refused + hostile_leases, info
    assert all(0 <= first < end <= info["issued"] for first, end in info["spent"]), info
