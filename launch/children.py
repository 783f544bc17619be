"""The processes of a run on this machine: those that it is made of, and those beside it that it does without if need
be. What each is started with is what a person would type for it alone."""

from __future__ import annotations

import sys
from dataclasses import replace

from headrace.launch.begun import Begun, set_words
from headrace.launch.child import Child

#: One thread per process: many processes share few cores, and results do not depend on the number of cores.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def children(begun: Begun) -> list[Child]:
    """Parameter server, learner, actors."""
    # A learner that died needs a person to look; the others hold nothing that is not elsewhere.
    learner = replace(_role(begun, "learner", 0, *begun.resumed), restart=False)
    actors = [_role(begun, "actor", i, "--index", str(i)) for i in range(begun.config.actors.processes)]
    return [_role(begun, "paramserver", 0), learner, *actors]


def beside(begun: Begun) -> list[Child]:
    """Trackers and the evaluator."""
    found = [_tracker(begun, name) for name in dict.fromkeys(begun.config.run.trackers)]
    if begun.config.run.evaluation_share > 0:
        found.append(_role(begun, "evaluator", 0, "--every-s", "1"))
    return [replace(child, needed=False) for child in found]


def _role(begun: Begun, role: str, index: int, *extra: str) -> Child:
    common = ["--config", str(begun.path / "config.toml"), *set_words(begun.overrides), "--run-dir", str(begun.path)]
    return _child(begun, f"{role}-{index}", role, role, *common, *extra)


def _tracker(begun: Begun, name: str) -> Child:
    return _child(begun, name, "tracker", "track", str(begun.path), "--to", name, "--follow")


def _child(begun: Begun, name: str, role: str, *words: str) -> Child:
    argv = [sys.executable, "-m", "headrace.launch.cli", *words]
    log = begun.path / "logs" / f"{name}.log"
    return Child(name, role, argv, log, True, {**_ONE_THREAD, **begun.env}, (begun.run_dir.lock,))
