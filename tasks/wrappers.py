"""Gymnasium's wrappers, and one's own, around an environment, by name; and what the environment said beneath them.

    task.wrappers = ["FlattenObservation", "my_package.wrappers:Thing",
                     { name = "TransformReward", func = "my_package.rewards:halved" }]
    task.wrappers = ["atari"]                    # the usual ones for an Atari game (atari.py)

Returns that are shown and evaluated are the environment's own: :class:`OwnReturns` stands innermost and keeps them from
whatever wrappers do to rewards and episodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium
from gymnasium import wrappers as gymnasiums

from headrace.common.errors import UsageError
from headrace.common.own_code import cause, fetch

#: A name, or a table of ``name`` and the constructor's arguments.
Wrapping: TypeAlias = str | Mapping[str, Any]
_SETTING = "task.wrappers"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
#: Several wrappers at once, by a short name: a function from an environment, and arguments, to the wrapped one.
_PRESETS = {"atari": "headrace.tasks.atari:preprocessed"}
#: Their statistics would stay with the actor that gathered them.
_RUNNING = (gymnasiums.NormalizeObservation, gymnasiums.NormalizeReward)


class OwnReturns(gymnasium.Wrapper):  # type: ignore[misc]  # Gymnasium is untyped to mypy
    """The rewards and resets of the environment itself."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._reward, self._resets = 0.0, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._reward, self._resets = 0.0, self._resets + 1
        result: tuple[Any, dict[str, Any]] = self.env.reset(**options)
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result: tuple[Any, Any, bool, bool, dict[str, Any]] = self.env.step(action)
        self._reward += float(result[1])
        return result

    def take_reward(self) -> float:
        """What was rewarded since the last call or reset (several steps, where a wrapper repeats an action)."""
        reward, self._reward = self._reward, 0.0
        return reward

    def take_reset(self) -> bool:
        """Whether it was reset since the last call: a wrapper may end an episode and go on in its middle."""
        resets, self._resets = self._resets, 0
        return resets > 0


def wrap(env: gymnasium.Env[Any, Any], wrappers: Sequence[Wrapping]) -> gymnasium.Env[Any, Any]:
    """``env`` in its ``wrappers``, the first one innermost. Raises :class:`UsageError`, naming the one that will not
    do."""
    if wrappers:
        env = OwnReturns(env)
    for number, wrapping in enumerate(wrappers):
        setting = f"{_SETTING}[{number}]"
        name, arguments = _taken_apart(wrapping, setting)
        kind = _kind(name, setting)
        try:
            env = kind(env, **{key: _value(value, setting) for key, value in arguments.items()})
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"{setting} {name!r} with {arguments} wraps nothing: {cause(error)}") from error
        if not isinstance(env, gymnasium.Env):
            raise UsageError(f"{setting} {name!r} made {type(env).__name__}, no gymnasium.Env")
    return env


def own_returns(env: gymnasium.Env[Any, Any]) -> OwnReturns | None:
    """The innermost of ``env``'s wrappers; None where it has none of ours."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, OwnReturns):
            return env
        env = env.env
    return None


def _taken_apart(wrapping: Wrapping, setting: str) -> tuple[str, dict[str, Any]]:
    if isinstance(wrapping, str):
        return wrapping, {}
    arguments = dict(wrapping)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(f'{setting} = {dict(wrapping)}: needs a name, as in {{ name = "ClipReward", max_reward = 1 }}')
    return name, arguments


def _kind(name: str, setting: str) -> Any:
    """The class of a wrapper: Gymnasium's own by name, others as ``package.module:Class``, or a short name."""
    name = _PRESETS.get(name, name)
    kind = fetch(name, setting) if ":" in name else getattr(gymnasiums, name, None)
    if kind is None:
        raise UsageError(
            f"{setting} {name!r}: gymnasium.wrappers has none; write your own as package.module:Class "
            f"({', '.join(_PRESETS)} is the usual preprocessing of Atari games)"
        )
    if not callable(kind):
        raise UsageError(f"{setting} {name!r} is {type(kind).__name__}, and no class of a wrapper")
    if isinstance(kind, type) and issubclass(kind, _RUNNING):
        raise UsageError(f"{setting} {name!r} keeps running statistics, which would not travel to other actors and the "
                         "evaluator; the algorithms normalise what they are shown")  # fmt: skip
    return kind


def _value(value: Any, setting: str) -> Any:
    """An argument as it stands, but for a function named ``package.module:function``."""
    return fetch(value, setting) if isinstance(value, str) and _FUNCTION.fullmatch(value) else value
