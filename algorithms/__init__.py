"""The algorithms by name: those of this folder, of installed packages, and of the user's own files.

    algorithm.name = "ppo"                               a file here and a row below
    algorithm.name = "reinforce"                         an entry point of the group headrace.algorithms
    algorithm.name = "my_package.reinforce:Reinforce"    any importable file, the folder one stands in included

docs/own-algorithm.md is the contract in one page; base.py holds it in types. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from importlib import metadata
from types import ModuleType
from typing import Any

from headrace.common import own_code
from headrace.common.errors import UsageError

#: name -> package.module:class of the learning half
ALGORITHMS: dict[str, str] = {
    "ppo": "headrace.algorithms.ppo:PPO",
    "dqn": "headrace.algorithms.dqn:DQN",
    "grpo": "headrace.algorithms.grpo:GRPO",
    "r2d2": "headrace.algorithms.r2d2:R2D2",
    "sac": "headrace.algorithms.sac:SAC",
}
GROUP = "headrace.algorithms"
_SETTING = "algorithm.name"
_MODULE = ("Config", "schema", "policy")
_CLASS = ("update", "weights", "progress", "state", "restore")


def module_of(name: str) -> ModuleType:
    """The file of an algorithm: its ``Config``, ``schema`` and ``policy``. Raises :class:`UsageError` for a name that
    nobody knows and for a file that lacks one of them."""
    path = _path(name)
    module = own_code.load_module(path.partition(":")[0], f"{_SETTING} {name!r}")
    _require(module, _MODULE, f"{module.__file__}")
    if not dataclasses.is_dataclass(module.Config) or not hasattr(module.Config, "experience"):
        raise UsageError(f"{own_code.where(module.Config)}: Config must be a dataclass with a property `experience`")
    return module


def learner_of(name: str) -> Any:
    """The class of an algorithm's learning half, with every method of :class:`headrace.algorithms.base.Algorithm`."""
    made = own_code.fetch(_path(name), _SETTING)
    _require(made, _CLASS, own_code.where(made))
    return made


def nearest(name: str, known: Iterable[str], lists: str = "") -> str:
    """What somebody may have meant, else all there is, or what command ``lists`` it; the end of a sentence."""
    names = sorted(known)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        return f"; did you mean {close[0]!r}?"
    return f"; {lists} lists them" if lists else f"; known: {', '.join(names)}"


def _path(name: str) -> str:
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if ":" in name:
        return name
    installed = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
    if name not in installed:
        raise UsageError(f"{_SETTING} {name!r} is unknown{nearest(name, {**ALGORITHMS, **installed})}")
    return installed[name]


def _require(owner: Any, names: tuple[str, ...], place: str) -> None:
    for name in names:
        if not callable(getattr(owner, name, None)):
            raise UsageError(f"{place}: no {name}(); an algorithm has {', '.join(names)} (docs/own-algorithm.md)")
