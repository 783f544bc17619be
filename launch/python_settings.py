"""Settings as Python code has them, for a config: sections as mappings, numpy's numbers, classes instead of names.

flat({"run": {"seed": 1}, "task.env": Pole})      # {"run.seed": 1, "task.env": "poles:Pole"}
words(...)                                        # ["run.seed=1", 'task.env="poles:Pole"']: what follows --set
"""

from __future__ import annotations

import json
import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headrace.common.errors import UsageError

#: The module of a script, a notebook or a session itself: no other process can import it.
_SESSION = "__main__"


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every value by its ``section.key``, in TOML's types. Raises :class:`UsageError` for what has no place in a
    config."""
    found = {}
    for key, value in settings.items():
        inside = isinstance(value, Mapping) and "." not in str(key)
        for name, part in ((f"{key}.{inner}", part) for inner, part in value.items()) if inside else [(key, value)]:
            found[str(name)] = plain(part, str(name))
    return found


def plain(value: Any, where: str) -> Any:
    """``value`` in TOML's types; classes and functions become their ``module:name``. Raises :class:`UsageError`, naming
    ``where``."""
    match value:
        case np.generic() | np.ndarray():
            return plain(value.tolist(), where)
        case str() | bool() | int() | float():
            return value
        case os.PathLike():
            return os.fspath(value)
        case Mapping():
            return {str(key): plain(part, f"{where}.{key}") for key, part in value.items()}
        case list() | tuple():
            return [plain(part, where) for part in value]
        case None:
            raise UsageError(f"{where} is None: leave it out to have its default")
    if callable(value):
        return _name(value, where)
    raise UsageError(f"{where} = {value!r:.100}: a config holds numbers, words, lists and tables, and no "
                     f"{type(value).__name__}")  # fmt: skip


def words(settings: Mapping[str, Any]) -> list[str]:
    """What :func:`flat` gives, as a command line has it: ``section.key=value`` each."""
    return [f"{key}={_toml(value)}" for key, value in settings.items()]


def refuse_session(value: Any, where: str = "") -> None:
    """Raises :class:`UsageError` if something in ``value`` names what only this session has: processes of their own
    cannot import it."""
    if isinstance(value, str) and value.startswith(f"{_SESSION}:"):
        name = value.partition(":")[2]
        raise UsageError(
            f"{where}: {name} is defined in this session, from which the processes of a run cannot import it: put it "
            f"into a file, own.py, and name it 'own:{name}'; headrace.train_serial takes it as it is"
        )
    inside = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        refuse_session(part, f"{where}.{key}" if where else str(key))


def python_path() -> str:
    """PYTHONPATH with which processes find what this one finds: the folders on its path that are no part of the
    installation, that of its script and those which were put there by hand."""
    installed = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    own = [Path(place) for place in sys.path if os.path.isdir(place)]
    own = [place.absolute() for place in own if not any(place.is_relative_to(one) for one in installed)]
    return os.pathsep.join(dict.fromkeys(map(str, own)))


def _name(thing: Any, where: str) -> str:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if getattr(sys.modules.get(str(module)), name, None) is not thing:
        raise UsageError(f"{where} = {thing!r:.100}: a class or function is known by its name, which has to stand at "
                         "the top level of a module")  # fmt: skip
    return f"{module}:{name}"


def _toml(value: Any) -> str:
    """In one line. (tomli_w writes documents, in which a table takes several.)"""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{_toml(key)} = {_toml(part)}" for key, part in value.items()) + "}"
    return repr(value)
