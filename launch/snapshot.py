"""Acting weights in one safetensors file that says which they are: run.snapshot_every_steps, and the best policy.

Metadata, under the key ``headrace``, as JSON: version, env_steps, scalars, and what the writer adds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from headrace.common.errors import UsageError
from headrace.common.types import Array, Weights


def encode(weights: Weights, **more: Any) -> bytes:
    """The file's content."""
    said = {"version": weights.version, "env_steps": weights.env_steps, "scalars": dict(weights.scalars), **more}
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in weights.tensors.items()}
    return bytes(safetensors.numpy.save(tensors, {"headrace": json.dumps(said)}))


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors by name, and the metadata. Raises :class:`UsageError` for what is no such file."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            said = json.loads((file.metadata() or {})["headrace"])
            return {name: file.get_tensor(name) for name in file.keys()}, said  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such snapshot") from error
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path} is no snapshot of this program: {error}") from error
