"""A policy's actions as an environment takes them: whole numbers from where its space counts, or within its bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces as gymnasiums

from headrace.common.types import Array


def to_env(space: Any) -> Callable[[Array], Any]:
    """Of actions [B] or [B, D] (types.py: Spaces.action) makes one for each environment, as ``space`` has them."""
    match space:
        case gymnasiums.Discrete():
            start = int(space.start)
            return lambda action: (action + start).tolist() if start else action.tolist()
        case gymnasiums.Box():
            low, half_range = space.low, (space.high - space.low) / 2
            shape = space.shape
            return lambda action: low + (np.clip(action, -1.0, 1.0).reshape(-1, *shape) + 1.0) * half_range
    first = space.start.ravel() if isinstance(space, gymnasiums.MultiDiscrete) else 0
    return lambda action: (action + first).reshape(-1, *space.shape).astype(space.dtype)
