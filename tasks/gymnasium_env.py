"""One Gymnasium environment as a config names it: an id, an id that a module registers, or a factory of one's own.

make_env("LunarLander-v3", {"gravity": -8.0})
make_env("my_package.my_envs:Thing-v0", {})           # the module is imported, which registers the id
make_env("my_package.my_envs:make_env", {"level": 3}) # what that class or function returns
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium

from headrace.common.errors import UsageError
from headrace.common.own_code import cause, load_module, where
from headrace.tasks import atari
from headrace.tasks.wrappers import Wrapping, wrap


def make_env(
    env_id: str, kwargs: dict[str, Any], render_mode: str | None = None, wrappers: Sequence[Wrapping] = ()
) -> gymnasium.Env[Any, Any]:
    """One environment in its ``wrappers``, the first one innermost. Training never passes a render mode: with one set,
    LunarLander keeps a particle per engine burst until ``render()`` is called, and steps get slower and slower. Raises
    :class:`UsageError` for whatever keeps it from being made."""
    factory, spec = _factory(env_id), None
    if factory is None:
        spec = copy.deepcopy(find_spec(env_id))
        spec.order_enforce = False  # our loops reset before they step; one Python call a step saved
    kwargs = {**atari.game_kwargs(env_id, wrappers), **kwargs}
    if render_mode is not None:
        if factory and not _takes(factory, "render_mode"):
            raise UsageError(f"{env_id!r} takes no argument render_mode; what does, and has render(), can be drawn")
        kwargs["render_mode"] = render_mode
    try:
        env = factory(**kwargs) if factory else gymnasium.make(spec, disable_env_checker=True, **kwargs)
    except (Exception, SystemExit) as error:  # a constructor of others: whatever it raises, the config named it
        raise UsageError(f"task.env {env_id!r} with task.kwargs {kwargs} cannot be made: {cause(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise UsageError(f"task.env {env_id!r} returned {type(env).__name__}, no gymnasium.Env ({where(factory)})")
    own = env.unwrapped.action_space  # a wrapper of its constructor may offer others
    if type(own) is gymnasium.spaces.Discrete:
        with contextlib.suppress(AttributeError):  # a property of its class: its check stays what it is
            env.unwrapped.action_space = _OwnActions(own.n, start=own.start)
    return wrap(env, wrappers)


def _takes(factory: Callable[..., Any], argument: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # nothing is known of it: it is asked
        return True
    return any(parameter.name == argument or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


class _OwnActions(gymnasium.spaces.Discrete):  # type: ignore[misc]  # Gymnasium is untyped to mypy
    """Environments assert that an action is in their space; Gymnasium's check of an int costs a sixth of a LunarLander
    step. Our policies' actions are ints, so comparing is enough."""

    def contains(self, x: Any) -> bool:
        return bool(self.start <= x < self.start + self.n)


def find_spec(env_id: str) -> Any:
    """What Gymnasium has registered; of ``module:Id-v0`` the module is imported first, which registers it, and of
    ``ALE/Id-v5`` ale-py is."""
    module, colon, name = env_id.rpartition(":")
    if colon:
        load_module(module, f"task.env {env_id!r}")
    elif name.startswith(atari.NAMESPACE):
        atari.register(env_id)
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        hint = f" (and {module} has nothing of that name)" if colon and name.isidentifier() else ""
        raise UsageError(f"task.env {env_id!r}: {error}{hint}") from error


def reward_threshold(env_id: str) -> float | None:
    """The return at which Gymnasium's registration counts the environment as solved, if it says."""
    threshold = None if _factory(env_id) else find_spec(env_id).reward_threshold
    return None if threshold is None else float(threshold)


def _factory(env_id: str) -> Any:
    """The class or function of ``module:name``; None where the name is one that the module has registered."""
    module, colon, name = env_id.rpartition(":")
    if not colon or not name.isidentifier():
        return None
    made = getattr(load_module(module, f"task.env {env_id!r}"), name, None)
    if made is not None and not callable(made):
        raise UsageError(f"task.env {env_id!r} is {type(made).__name__}; a class or function that makes one is needed")
    return made
