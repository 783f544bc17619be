"""A real run by single roles through a real Kafka, scraped by a real Prometheus with our rules."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.observe import endpoints
from tests.faults.run import Run

from .server import Prometheus, prometheus

ROLES = ("paramserver", "learner", "actor", "actor", "evaluator")


@dataclass(frozen=True)
class Live:
    run: Run
    prometheus: Prometheus
    began_s: float

    def wait_for(self, expression: str, timeout_s: float = 90.0) -> None:
        """Until Prometheus has something to say to ``expression``."""
        self.run.wait_until(lambda: self.prometheus.now(expression), expression, timeout_s)


@contextlib.contextmanager
def live(folder: Path, bootstrap: str, *settings: str) -> Iterator[Live]:
    """All roles, two actors, training with PPO until they are killed on leaving."""
    run = Run(folder, "ppo", f"transport.url=kafka://{bootstrap}", *settings)
    try:
        for number, role in enumerate(ROLES):
            more = {"actor": ("--index", str(number - 2)), "evaluator": ("--episodes", "2", "--every-s", "2")}.get(
                role, ()
            )
            run.role(role, *more)
        there = run.wait_until(
            lambda: found if len(found := endpoints.read(run.dir)) == len(ROLES) else None, "all roles"
        )
        with prometheus(folder / "prometheus", [e.metrics.removeprefix("http://") for e in there]) as server:
            yield Live(run, server, time.time())
    finally:
        run.close()
