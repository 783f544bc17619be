"""Gymnasium's spaces as algorithms know them (common/types.py: Spaces): a field for each array that is shown.

    Box, Discrete, MultiDiscrete, MultiBinary       one field, without a name
    Dict, Tuple, one within another                 a field each: "image", "arm.angle", "0"

Whole numbers stay whole numbers, from 0 on; networks make them one-hot. A MultiBinary is a MultiDiscrete of twos.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces as gymnasiums

from headrace.common.errors import UsageError
from headrace.common.named import array_name
from headrace.common.types import DTYPES, MASK, Field, Spaces

#: Where a part of an observation is found: keys of Dicts and places in Tuples, one within the other.
Path = tuple[Any, ...]
_METHOD = "action_masks"


def spaces_of(env: gymnasium.Env[Any, Any], env_id: str, mask_in_info: bool = False) -> Spaces:
    """What algorithms must know of the environment; ``mask_in_info``: it tells the mask of its actions with its info.
    Raises :class:`UsageError` for spaces nobody here can serve."""
    task = f"task.env {env_id!r}"
    action = _action(env.action_space, task)
    shown: dict[str, Field] = {}
    for name, _, space in parts(env.observation_space):
        if name in shown:
            raise UsageError(f"{task}: two observations are called {name!r}")
        shown[name] = _mask(space, action, task) if name == MASK else _observation(name, space, task)
    if action.choices and (mask_in_info or has_method(env)):
        shown.setdefault(MASK, Field("bool", (action.features,)))
    if not shown.keys() - {MASK}:
        raise UsageError(f"{task}: observation space {env.observation_space} shows nothing")
    return Spaces(shown, action)


def parts(space: Any, name: str = "", path: Path = ()) -> Iterator[tuple[str, Path, Any]]:
    """Every space within ``space`` that is no Dict and no Tuple, with its dotted name and its path. (A mask is one
    part, whatever it is made of.)"""
    if isinstance(space, gymnasiums.Dict | gymnasiums.Tuple) and name != MASK:
        inner = space.spaces.items() if isinstance(space, gymnasiums.Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from parts(part, array_name(name, str(key)) if name else str(key), (*path, key))
    else:
        yield name, path, space


def has_method(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether it, or what it wraps, has a method ``action_masks()``."""
    if not isinstance(env, gymnasium.Env) or not env.has_wrapper_attr(_METHOD):
        return False
    return callable(env.get_wrapper_attr(_METHOD))


def ask(env: gymnasium.Env[Any, Any]) -> Any:
    """What that method says."""
    return env.get_wrapper_attr(_METHOD)()


def _observation(name: str, space: Any, task: str) -> Field:
    match space:
        case gymnasiums.Box() if str(space.dtype) in DTYPES:
            dtype = str(space.dtype)
            return Field("float32" if dtype == "float64" else dtype, _shape(space))  # nobody learns from the other bits
        case gymnasiums.Discrete() | gymnasiums.MultiDiscrete() | gymnasiums.MultiBinary():
            return _whole_numbers(space, str(space.dtype))
    raise UsageError(
        f"{task}: observation space {space!s:.200}{f' of {name!r}' if name else ''} is not supported; a Box of "
        f"{', '.join(DTYPES)}, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of those are"
    )


def _action(space: Any, task: str) -> Field:
    match space:
        case gymnasiums.Discrete() | gymnasiums.MultiDiscrete() | gymnasiums.MultiBinary():
            return _whole_numbers(space, "int64")
        case gymnasiums.Box() if space.is_bounded() and np.issubdtype(space.dtype, np.floating):
            return Field("float32", (int(np.prod(space.shape)),))
        case gymnasiums.Box() if not np.issubdtype(space.dtype, np.floating):
            raise UsageError(f"{task}: action space {space} has whole numbers; a MultiDiscrete says how many each has")
    raise UsageError(
        f"{task}: action space {space!s:.200} is not supported; "
        "Discrete, MultiDiscrete, MultiBinary and a bounded Box are"
    )


def _whole_numbers(space: Any, dtype: str) -> Field:
    match space:
        case gymnasiums.Discrete():
            return Field(dtype, below=int(space.n), start=int(space.start))
        case gymnasiums.MultiDiscrete():
            below = tuple(int(n) for n in space.nvec.ravel())
            return Field(dtype, (len(below),), below=below, start=tuple(int(n) for n in space.start.ravel()))
    count = int(np.prod(space.shape))
    return Field(dtype, (count,), below=(2,) * count, start=(0,) * count)


def _mask(space: Any, action: Field, task: str) -> Field:
    if not action.choices:
        raise UsageError(f"{task}: shows an {MASK}, and its actions are a Box; masks are for Discrete, MultiDiscrete "
                         "and MultiBinary")  # fmt: skip
    entries, choices = sum(int(np.prod(part.shape or ())) for _, _, part in parts(space)), action.features
    if entries != choices:
        raise UsageError(f"{task}: its {MASK} {space} has {entries} entries; its actions have {choices} choices")
    return Field("bool", (choices,))


def _shape(space: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in space.shape)
