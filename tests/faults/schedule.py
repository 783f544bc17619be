"""seed -> what happens to a run, and when: kill -9 and pauses (SIGSTOP) of every kind of process, several at a time."""

from __future__ import annotations

import random
from typing import NamedTuple

TARGETS = ("actor-0", "actor-1", "learner", "paramserver", "broker")
#: How long a target is away, or frozen, at most: beyond what takes a lease away (weights.lease_ttl_s, 3.5).
LONGEST_S = 6.0
#: Between two faults of one target: it is to be in full swing again, now and then.
REST_S = (0.5, 6.0)


class Fault(NamedTuple):
    """``kill`` (SIGKILL, then started again) or ``freeze`` (SIGSTOP, then SIGCONT) of ``target``, for ``for_s``."""

    at_s: float
    what: str
    target: str
    for_s: float


class Step(NamedTuple):
    """One end of a fault."""

    at_s: float
    what: str
    target: str


def faults(seed: int, length_s: float, targets: tuple[str, ...] = TARGETS) -> list[Fault]:
    """Of one target one at a time; each target is killed or frozen once at least."""
    rng, made = random.Random(seed), list[Fault]()
    for target in targets:
        at_s = rng.uniform(0.0, 0.4 * length_s)
        while at_s < length_s or not any(fault.target == target for fault in made):
            what, long_s = rng.choice(("kill", "freeze")), rng.uniform(0.2, LONGEST_S)
            for_s = rng.choice((0.0, long_s)) if what == "kill" else long_s
            made.append(Fault(round(at_s, 2), what, target, round(for_s, 2)))
            at_s += for_s + rng.uniform(*REST_S)
    return sorted(made)


def steps(made: list[Fault]) -> list[Step]:
    """Both ends of each, in their order: kill and start, freeze and go_on."""
    undo = {"kill": "start", "freeze": "go_on"}
    ends = [Step(f.at_s + f.for_s, undo[f.what], f.target) for f in made]
    return sorted([Step(f.at_s, f.what, f.target) for f in made] + ends, key=lambda step: step.at_s)
