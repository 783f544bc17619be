"""Atari games, and the preprocessing that is usual for them (Mnih et al. 2015; Machado et al. 2018), as one line:

    task.env = "ALE/Pong-v5"
    task.wrappers = ["atari"]         # or a table: { name = "atari", episodic_life = false }

    game -> every 4th frame, the brighter of two -> grey, 84x84 -> an episode a life -> rewards -1, 0, 1

Lives and clipping are there to train on. Returns that are shown and evaluated are the game's own, over whole games
(wrappers.py). With ``task.backend = "envpool"`` the same line asks EnvPool for the same, in C++.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import gymnasium
import numpy as np

from headrace.common.errors import UsageError
from headrace.tasks.wrappers import Wrapping

NAMESPACE, WRAPPER = "ALE/", "atari"
#: What the wrapper needs of the game itself; grey frames are what it looks at, so that colours need not be made.
GAME_KWARGS = {"frameskip": 1, "obs_type": "grayscale"}
_INSTALL = "pip install 'headrace[atari]'"
_NOOP, _FIRE = 0, 1


@dataclass(frozen=True)
class Preprocessing:
    """The arguments of the wrapper."""

    frame_skip: int = 4
    """Frames an action is repeated for; shown is the brighter of the last two, since sprites flicker."""
    screen_size: int = 84
    """Pixels a side of what is shown."""
    noop_max: int = 30
    """A game begins with 1 to so many frames without action."""
    fire_reset: bool = True
    """Press FIRE at every beginning, in games that wait for it."""
    episodic_life: bool = True
    """For the learner an episode ends with each life; the game goes on in the next one."""
    clip_reward: bool = True
    """The learner is shown the sign of each reward."""


def register(env_id: str) -> None:
    """Make the games known to Gymnasium. Raises :class:`UsageError` where ale-py is not installed."""
    try:
        import ale_py
    except ImportError as error:
        raise UsageError(f"task.env {env_id!r}: Atari games need ale-py; {_INSTALL}") from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for every environment


def game_kwargs(env_id: str, wrappers: Sequence[Wrapping]) -> Mapping[str, Any]:
    """What the constructor of the game ``env_id`` is to be given, where it is preprocessed."""
    return GAME_KWARGS if env_id.startswith(NAMESPACE) and WRAPPER in map(_name, wrappers) else {}


def preprocessed(env: gymnasium.Env[Any, Any], **arguments: Any) -> gymnasium.Env[Any, Any]:
    """A game in the wrappers that ``arguments`` (:class:`Preprocessing`) ask for. Raises :class:`UsageError`."""
    wanted = _preprocessing(arguments)
    if not hasattr(env.unwrapped, "ale"):
        raise UsageError(
            f"task.wrappers 'atari' is for the games of ale-py, as in task.env = \"ALE/Pong-v5\"; "
            f"this is {type(env.unwrapped).__name__}"
        )
    try:
        env = gymnasium.wrappers.AtariPreprocessing(
            env, noop_max=wanted.noop_max, frame_skip=wanted.frame_skip, screen_size=wanted.screen_size
        )
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"task.wrappers 'atari' needs OpenCV to shrink frames; {_INSTALL}") from error
    if wanted.episodic_life:
        env = EpisodicLife(env)
    if wanted.fire_reset and env.unwrapped.get_action_meanings()[_FIRE] == "FIRE":
        env = FireReset(env)
    return gymnasium.wrappers.TransformReward(env, _sign) if wanted.clip_reward else env


def for_envpool(
    env_id: str, kwargs: Mapping[str, Any], wrappers: Sequence[Wrapping]
) -> tuple[str, dict[str, Any], Sequence[Wrapping]]:
    """EnvPool's name of the game, its arguments, and the wrappers that are left. Raises :class:`UsageError`, also where
    ale-py is missing, with which the run will be evaluated."""
    register(env_id)
    if list(map(_name, wrappers)) != [WRAPPER]:
        raise UsageError(
            f'task.env {env_id!r}: EnvPool\'s games come preprocessed; use task.wrappers = ["atari"], and nothing else'
        )
    wanted = asdict(_preprocessing({} if isinstance(wrappers[0], str) else wrappers[0]))
    size = wanted.pop("screen_size")
    wanted |= {"img_height": size, "img_width": size, "use_fire_reset": wanted.pop("fire_reset")}
    wanted |= {"reward_clip": wanted.pop("clip_reward"), "stack_num": 1}
    return env_id.removeprefix(NAMESPACE), {**wanted, **kwargs}, ()


class EpisodicLife(gymnasium.Wrapper):  # type: ignore[misc]  # Gymnasium is untyped to mypy
    """Ends an episode with each life; a reset then goes on in the game, one step without action later."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._lives, self._over = 0, True

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        if not self._over and options.get("seed") is None:
            shown, _, terminated, truncated, info = self.env.step(_NOOP)
            self._over = terminated or truncated
        if self._over or options.get("seed") is not None:
            shown, info = self.env.reset(**options)
            self._over = False
        self._lives = self.env.unwrapped.ale.lives()
        return shown, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        shown, reward, terminated, truncated, info = self.env.step(action)
        before, self._lives = self._lives, self.env.unwrapped.ale.lives()
        self._over = terminated or truncated
        # Some games show no lives for a while before they are over.
        return shown, reward, terminated or 0 < self._lives < before, truncated, info


class FireReset(gymnasium.Wrapper):  # type: ignore[misc]  # Gymnasium is untyped to mypy
    """Presses FIRE at every beginning: some games stand still until then."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.env.reset(**options)
        shown, _, terminated, truncated, info = self.env.step(_FIRE)
        result: tuple[Any, dict[str, Any]] = self.env.reset(**options) if terminated or truncated else (shown, info)
        return result


def _sign(reward: Any) -> float:
    return float(np.sign(reward))


def _name(wrapping: Wrapping) -> Any:
    return wrapping if isinstance(wrapping, str) else wrapping.get("name")


def _preprocessing(arguments: Mapping[str, Any]) -> Preprocessing:
    known = [field.name for field in fields(Preprocessing)]
    given = {name: value for name, value in arguments.items() if name != "name"}
    if unknown := sorted(given.keys() - set(known)):
        raise UsageError(f"task.wrappers 'atari' takes no {', '.join(unknown)}; it takes {', '.join(known)}")
    return Preprocessing(**given)
