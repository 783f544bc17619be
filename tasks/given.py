"""Observations that a caller holds, of an environment that is not ours: one of them, or many side by side.

    given(obs, mask)          # (a batch as policies take it, whether it was one)

One is as the environment shows it, many as ``gymnasium.vector`` does: every array with an axis more in front, Dicts and
Tuples of such arrays. (shown.py reads what our own environments show, one by one.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.common.errors import UsageError
from headrace.common.masks import allows_any
from headrace.common.named import alone
from headrace.common.types import MASK, Array, Field, Obs, Spaces
from headrace.tasks.spaces import parts


class Given:
    """For environments that have the observation space ``space``, which policies know as ``spaces``."""

    def __init__(self, space: Any, spaces: Spaces) -> None:
        self._spaces = spaces
        self._parts = list(parts(space))
        self._shows_mask = MASK in {name for name, *_ in self._parts}

    def __call__(self, obs: Any, mask: Any = None) -> tuple[Obs, bool]:
        """``obs`` as arrays [B, ...], by name where there are several, and whether it was one observation (B = 1 then).
        ``mask``: which actions are allowed, [choices] or [B, choices], where the environment tells it apart from its
        observations.

        Raises :class:`UsageError` for what is not of the space."""
        found = {}
        for name, path, space in self._parts:
            part = _at(obs, name, path)
            found[name] = self._mask(part) if name == MASK else _batch(name, part, space, self._spaces.obs[name])
        if MASK in self._spaces.obs and not self._shows_mask:
            if mask is None:
                raise UsageError("act: the environment tells which actions are allowed; hand it on as action_mask=")
            found[MASK] = self._mask(mask)
        elif mask is not None:
            raise UsageError("act: the environment tells no action_mask apart from its observations")
        if len(counts := {len(array) if many else None for array, many in found.values()}) > 1:
            raise UsageError(f"act: its parts are of different numbers of observations: {_counted(found)}")
        return alone({name: array for name, (array, _) in found.items()}), counts == {None}

    def _mask(self, told: Any) -> tuple[Array, bool]:
        entries, choices = self._spaces.action.features, self._spaces.action.choices
        several = isinstance(told, tuple | list) and np.ndim(told[0]) > 0
        mask = np.concatenate([np.asarray(one) for one in told], -1) if several else np.asarray(told)
        if mask.ndim not in (1, 2) or mask.shape[-1] != entries:
            raise UsageError(f"act: {MASK} has shape {mask.shape}; [{entries}] or [n, {entries}] is right")
        batch = np.atleast_2d(mask).astype(np.bool_)
        if mask.ndim == 1 and not allows_any(batch, choices).all():  # of many, some may have ended and be reset next
            raise UsageError(f"act: the {MASK} allows nothing; an episode that has ended is reset first")
        return batch, mask.ndim == 2


def _at(obs: Any, name: str, path: tuple[Any, ...]) -> Any:
    for key in path:
        try:
            obs = obs[key]
        except (KeyError, IndexError, TypeError) as error:
            raise UsageError(f"act: the observation has no {name!r}, which its space has") from error
    return obs


def _batch(name: str, given: Any, space: Any, field: Field) -> tuple[Array, bool]:
    """[B, ...] as policies take it, and whether it has its own B."""
    array, what = np.asarray(given), f"observation{f' {name!r}' if name else ''}"
    many = array.shape[1:] == space.shape and array.ndim == len(space.shape) + 1
    if not many and array.shape != space.shape:
        shape = list(space.shape)
        raise UsageError(f"act: {what} has shape {array.shape}; {shape} is right for one, {['n', *shape]} for many")
    if not np.can_cast(array.dtype, field.dtype, "same_kind"):
        raise UsageError(f"act: {what} is of {array.dtype}, which is no {field.dtype}")
    if not many:
        array = array[None]
    if not field.choices:
        return np.asarray(array, field.dtype), many
    array = array.reshape(-1, *field.shape) - np.asarray(field.start)
    if np.any((array < 0) | (array >= np.asarray(field.below))):
        raise UsageError(f"act: {what} {np.asarray(given).tolist()!s:.100} is not in {space}")
    return np.asarray(array, field.dtype), many


def _counted(found: dict[str, tuple[Array, bool]]) -> str:
    return ", ".join(f"{name} {len(array) if many else 'one'}" for name, (array, many) in found.items())
