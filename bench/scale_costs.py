"""What a call costs: the numbers that bench/scale.py measures and bench/scale_model.py reckons with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KEPT = Path(__file__).resolve().parent / "results" / "scale.json"


@dataclass(frozen=True)
class ServerCosts:
    """CPU seconds of a parameter server: a Next, a Heartbeat, a call of the learner's, a byte of weights sent.
    ``idle``: cores while nobody calls. ``relayed_``: of one that comes by a relay; ``relay_``: of a relay, which takes
    the call and passes it on."""

    idle: float
    lease_s: float
    beat_s: float
    tell_s: float
    byte_s: float
    relayed_lease_s: float
    relayed_beat_s: float
    relay_lease_s: float
    relay_beat_s: float


@dataclass(frozen=True)
class CarrierCosts:
    """CPU seconds of the learner's process by the record and by the byte, ``idle`` cores, the same of the broker (0
    where there is none), and how long an actor waits for a put to be acknowledged."""

    idle: float
    record_s: float
    byte_s: float
    put_s: float
    broker_idle: float = 0.0
    broker_record_s: float = 0.0
    broker_byte_s: float = 0.0


@dataclass(frozen=True)
class Costs:
    """Of one machine. ``ask_s``: how long an actor waits for a lease that is there."""

    server: ServerCosts
    carriers: Mapping[str, CarrierCosts]
    ask_s: float

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Costs:
        carriers = {name: CarrierCosts(**row) for name, row in found["carriers"].items()}
        return cls(ServerCosts(**found["server"]), carriers, found["ask_s"])


def kept() -> dict[str, Any]:
    """What bench/scale.py measured last: bench/results/scale.json."""
    found: dict[str, Any] = json.loads(KEPT.read_text())
    return found


def fit(rows: Sequence[Sequence[float]], measured: Sequence[float]) -> list[float]:
    """Costs, none below 0, with which the sums of ``rows`` come nearest to what was ``measured``, relative to it."""
    scale = np.array(measured, float)
    matrix, target = np.array(rows, float) / scale[:, None], np.ones(len(scale))
    kept = list(range(matrix.shape[1]))
    while True:
        found = np.linalg.lstsq(matrix[:, kept], target, rcond=None)[0]
        if (found >= 0).all():
            costs = np.zeros(matrix.shape[1])
            costs[kept] = found
            return [float(cost) for cost in costs]
        kept.pop(int(found.argmin()))
