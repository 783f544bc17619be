"""The plan of a run's networks, which only its learner can tell: parameters of each, bytes of what a version brings.

network_plan.of(algorithm)       # -> {"networks": {"pi": 4610, "vf": 4545}, "version_bytes": 18504}
network_plan.line(planned)       # -> "networks: pi 4,610 parameters, vf 4,545; 18.5 kB a version to the actors"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.algorithms.base import Algorithm


def of(algorithm: Algorithm) -> dict[str, Any]:
    """Parameters by attribute, of each ``torch.nn.Module`` that is one, and the bytes of a version's tensors."""
    from torch.nn import Module

    sizes = {
        name: sum(parameter.numel() for parameter in value.parameters())
        for name, value in vars(algorithm).items()
        if isinstance(value, Module)
    }
    tensors, _ = algorithm.weights()
    return {
        "networks": {name: size for name, size in sizes.items() if size},
        "version_bytes": sum(tensor.nbytes for tensor in tensors.values()),
    }


def line(planned: Mapping[str, Any]) -> str:
    """What a person is told of it; "" where the learner has not said it yet."""
    if not planned.get("networks"):
        return ""
    (first, size), *others = planned["networks"].items()
    named = ", ".join([f"{first} {size:,} parameters", *(f"{name} {size:,}" for name, size in others)])
    return f"networks: {named}; {_bytes(planned['version_bytes'])} a version to the actors"


def read(path: Path) -> dict[str, Any]:
    """The plan that is kept at ``path``; nothing of one that is not there yet."""
    try:
        planned: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return planned


def _bytes(n: int) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.1f} kB"
