"""Observations by name: one array where an environment shows one, a mapping of them by name where it shows several.

    obs = {"image": [B, ...], "speed": [B, ...]}         # or one array [B, ...]
    spread("obs", obs)                                   # {"obs.image": ..., "obs.speed": ...}: as they travel
    gathered(arrays, "obs")                              # back again

Arrays and tensors alike. The name "" is that of an array that has none, beside a mask: it travels as ``obs``. The
mappings are dicts (to ask whether one is a Mapping costs some 0.3 us, four times a step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.common.types import MASK


def parts(obs: Any) -> dict[str, Any]:
    """Always by name."""
    return obs if isinstance(obs, dict) else {"": obs}


def alone(parts: Mapping[str, Any]) -> Any:
    """The opposite: the one array that has no name, if it is the only one."""
    return dict(parts) if parts.keys() - {""} else parts[""]


def each(function: Callable[..., Any], *obs: Any) -> Any:
    """``function`` of the array, or of those of each name."""
    if isinstance(obs[0], dict):
        return {name: function(*(one[name] for one in obs)) for name in obs[0]}
    return function(*obs)


def rows(obs: Any, at: Any) -> Any:
    """``obs[at]``, by name where there are several."""
    return {name: part[at] for name, part in obs.items()} if isinstance(obs, dict) else obs[at]


def put(obs: Any, at: Any, rows: Any) -> None:
    """``obs[at] = rows``, by name where there are several."""
    if isinstance(obs, dict):
        for name, part in obs.items():
            part[at] = rows[name]
    else:
        obs[at] = rows


def array_name(kind: str, name: str) -> str:
    """How the array ``name`` of a ``kind`` (obs, final_obs) is called among others."""
    return f"{kind}.{name}" if kind and name else kind or name


def is_of(kind: str, name: str) -> bool:
    """Whether an array called ``name`` is one of ``kind``."""
    return name == kind or name.startswith(f"{kind}.")


def spread(kind: str, obs: Any) -> dict[str, Any]:
    """As it stands among other arrays: under ``kind``, or ``kind.name`` each."""
    return {array_name(kind, name): part for name, part in parts(obs).items()}


def gathered(arrays: Mapping[str, Any], kind: str) -> Any:
    """The opposite of :func:`spread`. Raises KeyError where there is nothing of the kind."""
    if kind in arrays and array_name(kind, MASK) not in arrays:
        return arrays[kind]
    return alone({name[len(kind) + 1 :]: part for name, part in arrays.items() if is_of(kind, name)})


def seen(obs: Any) -> Any:
    """What a network sees of an observation: all but the mask."""
    if not isinstance(obs, dict):
        return obs
    return alone({name: part for name, part in obs.items() if name != MASK})


def mask(obs: Any) -> Any:
    """bool [..., choices], True where a choice is allowed; None where all are."""
    return obs.get(MASK) if isinstance(obs, dict) else None


def instead(found: Any, obs: Any) -> Any:
    """``found`` in place of what a network sees of ``obs``; its mask, if it has one, beside it."""
    mask_ = mask(obs)
    return found if mask_ is None else {"": found, MASK: mask_}
