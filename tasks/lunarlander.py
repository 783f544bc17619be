"""The terms of LunarLander's reward, to be weighed anew (tasks/shaping.py)."""

from __future__ import annotations

import math
from typing import Any

_MAIN_ENGINE = 2


def terms(shown: Any, action: Any) -> dict[str, float]:
    """Of an observation (x, y, vx, vy, angle, angular velocity, left and right leg) and the action before it (None: of
    the state alone). The environment itself weighs them -100, -100, -100, 10 as a potential, and fuel -0.3 (a side
    engine counts a tenth)."""
    x, y, vx, vy, angle, _, left, right = (float(value) for value in shown)
    fuel = 0.0 if not action else 1.0 if action == _MAIN_ENGINE else 0.1
    return {
        "distance": math.hypot(x, y),
        "velocity": math.hypot(vx, vy),
        "angle": abs(angle),
        "legs": left + right,
        "engine": fuel,
    }
