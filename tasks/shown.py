"""Reads what an environment showed: an array, or one by each name, held to what its spaces say.

read(shown, info, env)          # {"image": [84, 84], "speed": [3], "action_mask": [4]}, or one array
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from headrace.common.masks import allows_any
from headrace.common.types import MASK, Array, Field, Obs, Spaces
from headrace.tasks.spaces import ask, has_method, parts


class Unfit(Exception):
    """An environment did not raise, but what it showed is of no use."""


class Reader:
    """For environments alike. Raises :class:`Unfit` for what is not what their observation space says."""

    def __init__(self, env: gymnasium.Env[Any, Any], spaces: Spaces) -> None:
        self._spaces, self._choices = spaces, spaces.action.choices
        self._parts = [(name, path, part, spaces.obs[name]) for name, path, part in parts(env.observation_space)]
        self._masks_apart = MASK in spaces.obs and MASK not in {name for name, *_ in self._parts}
        self._by_method = has_method(env)

    def __call__(self, shown: Any, info: Any, env: gymnasium.Env[Any, Any], over: bool = False) -> Obs:
        """``over``: the episode has ended with it, so no action needs to be allowed."""
        if not self._masks_apart and self._parts[0][0] == "":
            return _fit("", shown, self._parts[0][2], self._parts[0][3])
        found = {}
        for name, path, space, field in self._parts:
            part = _at(shown, name, path)
            found[name] = self._mask(part, over) if name == MASK else _fit(name, part, space, field)
        if self._masks_apart:
            found[MASK] = self._mask(ask(env) if self._by_method else self._in_info(info, over), over)
        return found

    def _in_info(self, info: Any, over: bool) -> Any:
        if isinstance(info, Mapping) and MASK in info:
            return info[MASK]
        if over:
            return np.zeros(self._spaces.action.features, np.bool_)
        raise Unfit(f"gave no {MASK} with its info, as it had done before")

    def _mask(self, told: Any, over: bool) -> Array:
        try:
            several = isinstance(told, tuple | list)
            mask = np.concatenate([np.ravel(part) for part in told]) if several else np.ravel(told)
        except ValueError as error:
            raise Unfit(f"showed {told!r:.100} as its {MASK}: {error}") from error
        if mask.size != self._spaces.action.features or mask.dtype.kind not in "biuf":
            raise Unfit(f"showed an {MASK} of {mask.size} entries of {mask.dtype}; its actions have "
                        f"{self._spaces.action.features} choices")  # fmt: skip
        mask = mask.astype(np.bool_)
        if not over and not allows_any(mask, self._choices):
            raise Unfit(f"showed an {MASK} that allows nothing, and the episode goes on")
        return mask


def _at(shown: Any, name: str, path: tuple[Any, ...]) -> Any:
    for key in path:
        try:
            shown = shown[key]
        except (KeyError, IndexError, TypeError) as error:
            raise Unfit(f"showed no {name!r}, which its observation space has") from error
    return shown


def _fit(name: str, shown: Any, space: Any, field: Field) -> Array:
    """As an array, if it has the declared shape and a dtype that can become the declared one."""
    array, what = np.asarray(shown), f"an observation{f' {name!r}' if name else ''}"
    if array.shape != space.shape:
        raise Unfit(f"showed {what} of shape {array.shape}; its observation space says {space.shape}")
    if not np.can_cast(array.dtype, field.dtype, "same_kind"):
        raise Unfit(f"showed {what} of {array.dtype}, which is no {field.dtype}")
    if not field.choices:
        return array
    array = array.reshape(field.shape) - np.asarray(field.start)
    if np.any((array < 0) | (array >= np.asarray(field.below))):
        raise Unfit(f"showed {what} {np.asarray(shown).tolist()}, which is not in its observation space {space}")
    return np.asarray(array, field.dtype)
