"""A learner that learns nothing: the real source, the real intake with every check, the real publisher, and a count.

It makes versions at a given rate, of numbers that nobody trains; leases are paced as a learner's are, but so far ahead
that no actor waits for one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from swarm import LIMITS, SCHEMA, TASK

from headrace.common.metrics import Metrics
from headrace.common.transport import open_source
from headrace.common.types import Weights
from headrace.common.validation import Expected, validate
from headrace.common.weights.base import LedgerState, Progress
from headrace.common.weights.grpc import GrpcPublisher
from headrace.learner.intake import Intake
from headrace.learner.leases import Leases

#: As often as learner/loop.py tells its counters while no version is made.
TELL_EVERY_S = 1.0
_TURN_S = 0.02


@dataclass(frozen=True)
class Plan:
    """``ahead``: fragments that may be begun beyond those accepted."""

    address: str
    run_id: str
    url: str
    folder: Path
    weights_bytes: int
    versions_per_s: float
    ahead: int
    fragment_steps: int
    envs: int


def version(run_id: str, number: int, nbytes: int) -> Weights:
    """Four layers of a quarter of ``nbytes`` each, no two versions alike."""
    layer = np.full(nbytes // 16, number, np.float32)
    return Weights(run_id, 1, number, {f"layer{i}": layer + i for i in range(4)})


def learn(pipe: Connection, plan: Plan) -> None:
    """Runs in a process of its own, and answers every order with what it counted so far; None ends it."""
    metrics, counts = Metrics("learner"), Counter[str]()
    dead = plan.folder / "dead_letter"
    source = open_source(plan.url, limits=LIMITS, metrics=metrics, dead_letter=dead, group="bench", run_id=plan.run_id)
    expected = Expected(SCHEMA, plan.run_id, TASK, steps=plan.fragment_steps, envs=plan.envs)
    publisher = GrpcPublisher(plan.address, plan.run_id, "", metrics)
    intake = Intake(source, lambda t: validate(t, expected), Leases(1), publisher.ask, metrics, LIMITS.queue_bytes, {})
    publisher.listen(_counted(intake.hear, counts))
    try:
        _turn_until_told(pipe, plan, intake, publisher, counts, metrics)
    finally:
        intake.close()
        publisher.close()


def _turn_until_told(
    pipe: Connection, plan: Plan, intake: Intake, publisher: GrpcPublisher, counts: Counter[str], metrics: Metrics
) -> None:
    next_s = told_s = time.monotonic()
    while True:
        received = intake.take(_TURN_S)
        if received is not None:
            counts["fragments"] += 1
            counts["steps"] += received.trajectory.steps
        if (now_s := time.monotonic()) >= next_s:
            weights = version(plan.run_id, counts["published"], plan.weights_bytes)
            publisher.publish(weights, _progress(intake, counts, plan.ahead))
            counts["published"] += 1
            next_s, told_s = max(next_s + 1 / plan.versions_per_s, now_s), now_s
        elif now_s - told_s > TELL_EVERY_S:
            publisher.admit(_progress(intake, counts, plan.ahead))
            told_s = now_s
        if pipe.poll():
            if pipe.recv() is None:
                return
            refused = Counter(one.reason for one in intake.take_refused())
            counts.update({f"refused {reason}": n for reason, n in refused.items()})
            pipe.send(dict(counts) | {"cpu_s": time.process_time()})


def _progress(intake: Intake, counts: Counter[str], ahead: int) -> Progress:
    account = intake.account()
    accepted = counts["fragments"] + account.queued
    return Progress(accepted + ahead, account.issued, accepted, account.spent, account.waiting, complete=True)


def _counted(hear: Callable[[LedgerState, int], None], counts: Counter[str]) -> Callable[[LedgerState, int], Any]:
    """Every answer of the server is an Admit or a Publish."""

    def heard(state: LedgerState, ticket: int) -> None:
        counts["tells"] += 1
        hear(state, ticket)

    return heard
