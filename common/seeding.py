"""Random numbers that do not depend on who draws first: every use has a stream of its own, named.

    rng = stream(seed, "act", actor_id)               # the same numbers in whichever process
    envs.reset(reset_seeds(seed, "env", actor_id, n=16))

Training resets use seeds below 2**31, evaluation resets seeds from 2**31 on: nobody is ever evaluated on an episode it
was trained on. Among those, what is reported and what something was chosen by have seeds of their own: figures of the
best of many policies, on the episodes that made it the best, would flatter it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from headrace.common.errors import UsageError

#: First seed of evaluation episodes; training seeds are all below.
EVALUATION_BASE = 2**31
#: First seed of episodes to choose by; those that are reported are below.
SELECTION_BASE = 3 * 2**30


def stream(seed: int, *names: int | str) -> np.random.Generator:
    """A generator (PCG64) of its own for ``names``: seeded by the sha256 of the seed and the names."""
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def reset_seeds(seed: int, *names: int | str, n: int) -> list[int]:
    """``n`` reset seeds for training environments, each in [0, 2**31)."""
    return [int(s) for s in stream(seed, "reset", *names).integers(0, EVALUATION_BASE, size=n)]


def evaluation_seeds(n: int, first: int = 0) -> list[int]:
    """``n`` reset seeds for the evaluations that are reported, from the one of index ``first`` on, each in
    [2**31, 3 * 2**30). Raises :class:`UsageError` for more than there are."""
    if first < 0 or first + n > SELECTION_BASE - EVALUATION_BASE:
        last = SELECTION_BASE - EVALUATION_BASE - 1
        raise UsageError(f"{n:,} evaluation seeds from index {first:,} on: there are those from 0 to {last:,}")
    return [EVALUATION_BASE + first + i for i in range(n)]


def selection_seeds(n: int, first: int = 0) -> list[int]:
    """``n`` reset seeds for evaluations during training (the curve, which policy is the best, whether the task is
    solved), each in [3 * 2**30, 2**32)."""
    return [SELECTION_BASE + first + i for i in range(n)]


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """The generator's state as JSON-able values (whole numbers may exceed 64 bits: kept as text)."""
    state = rng.bit_generator.state
    inner = {k: str(v) for k, v in state["state"].items()}
    return {
        "kind": state["bit_generator"],
        "state": inner,
        "has_uint32": state["has_uint32"],
        "uinteger": state["uinteger"],
    }


def restore_generator(saved: dict[str, Any]) -> np.random.Generator:
    """A generator that goes on where :func:`generator_state` saw it."""
    rng = np.random.Generator(np.random.PCG64())
    rng.bit_generator.state = {
        "bit_generator": saved["kind"],
        "state": {k: int(v) for k, v in saved["state"].items()},
        "has_uint32": saved["has_uint32"],
        "uinteger": saved["uinteger"],
    }
    return rng
