"""make_batch: the environments of a task, whichever library is behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.common.errors import UsageError
from headrace.tasks.base import EnvBatch, StepResult
from headrace.tasks.wrappers import Wrapping

__all__ = ["BACKENDS", "EnvBatch", "StepResult", "make_batch"]

BACKENDS = ("gymnasium", "envpool")


def make_batch(
    env_id: str,
    n: int,
    *,
    backend: str = "gymnasium",
    kwargs: Mapping[str, Any] = {},
    seed: int = 0,
    wrappers: Sequence[Wrapping] = (),
) -> EnvBatch:
    """``n`` environments of ``env_id``. Raises :class:`UsageError` for an unknown id, backend, or unfit spaces."""
    match backend:
        case "gymnasium":
            from headrace.tasks.gymnasium_batch import GymnasiumBatch

            return GymnasiumBatch(env_id, n, dict(kwargs), wrappers)
        case "envpool":
            from headrace.tasks import atari
            from headrace.tasks.envpool_batch import EnvPoolBatch

            if env_id.startswith(atari.NAMESPACE):
                env_id, kwargs, wrappers = atari.for_envpool(env_id, kwargs, wrappers)
            if wrappers:
                raise UsageError("task.wrappers: EnvPool's environments take none; use task.backend = 'gymnasium'")
            return EnvPoolBatch(env_id, n, dict(kwargs), seed)
    raise UsageError(f"task.backend {backend!r}: one of {', '.join(BACKENDS)}")
