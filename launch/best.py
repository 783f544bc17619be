"""RUN/best/policy.safetensors: the acting weights that evaluated best, and how they did.

Written by the evaluator from the weights it played, and at the end of a run with the last ones if they are better: no
checkpoint has to have been made at the right moment. One file, replaced whole; `headrace evaluate RUN --best` reads it.
Scores are of episodes to choose by (common/seeding.py), not of those that are reported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.common import durable
from headrace.common.errors import UsageError
from headrace.common.types import Weights
from headrace.launch import snapshot

FOLDER = "best"
_log = logging.getLogger("headrace.best")


def path_of(run_dir: Path) -> Path:
    return run_dir / FOLDER / "policy.safetensors"


def score(run_dir: Path) -> float | None:
    """The mean return of the best so far; None before one was evaluated, and for a damaged file, which is logged and
    may be replaced."""
    path = path_of(run_dir)
    if not path.exists():
        return None
    try:
        evaluation = snapshot.read(path)[1].get("evaluation")
        return None if evaluation is None else float(evaluation["mean"])
    except (UsageError, KeyError, TypeError, ValueError) as error:
        _log.warning("%s: %s; the next evaluation replaces it", path, error)
        return None


def keep(run_dir: Path, weights: Weights, evaluation: Mapping[str, Any] | None) -> None:
    """Put ``weights`` in the place of the best so far; ``evaluation`` is None for the first where none was made. A disk
    that does not take them is logged: the old ones stay."""
    path = path_of(run_dir)
    try:
        path.parent.mkdir(exist_ok=True)  # not the run's own, if that is gone
        for stale in path.parent.glob("tmp-*"):  # of one that was killed while it wrote
            durable.remove(stale)
        durable.replace_file(path, snapshot.encode(weights, evaluation=evaluation and dict(evaluation)))
    except OSError as error:
        _log.warning("%s: not written (%s)", path, error.strerror)
