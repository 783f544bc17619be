"""From a TOML preset or file, with ``--set section.key=value`` on top, to a :class:`Config` that was checked in whole
before anything starts. An unknown key names its nearest.
"""

from __future__ import annotations

import copy
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic

from headrace.algorithms import ALGORITHMS, learner_of, nearest
from headrace.common.errors import UsageError
from headrace.launch.config import Config

_SHOWN_CHARS = 60


def presets() -> dict[str, Path]:
    """The shipped presets by name."""
    folder = Path(str(resources.files("headrace.launch.presets")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(source: str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Read a preset or a file (or take what would stand in one), apply ``section.key=value`` overrides, check
    everything.

    Raises :class:`UsageError` with one line: what is wrong, where, and what would be right.
    """
    table = _read(source) if isinstance(source, str) else copy.deepcopy(dict(source))
    for override in overrides:
        _set(table, override)
    return check(table, source if isinstance(source, str) else "settings")


def check(table: Mapping[str, Any], where: str) -> Config:
    """A table to a checked :class:`Config`, the algorithm's own keys included."""
    section = table.get("algorithm", {})
    if not isinstance(section, Mapping):
        raise UsageError(f'{where}: algorithm = {section!r}: a section, such as {{"name": "ppo"}}')
    name = section.get("name", "ppo")
    if not isinstance(name, str):
        raise UsageError(f"{where}: algorithm.name {name!r} is unknown{nearest(str(name), ALGORITHMS)}")
    try:
        learner_of(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    try:
        config = Config.model_validate({**table, "algorithm": {"name": name, **section}})
    except pydantic.ValidationError as error:
        raise UsageError(f"{where}: {_one_line(error, Config, '')}") from error
    own = {"kwargs": config.task.kwargs, "wrappers": list(config.task.wrappers)}
    if (found := _not_finite(own, "task")) is not None:
        raise UsageError(f"{where}: {found} is not a finite number, and a run's config.toml must hold what it was")
    known = {"name", *_keys(config.algorithm_module().Config, ())}
    for key in config.algorithm.keys() - known:
        raise UsageError(f"{where}: unknown key algorithm.{key}{nearest(key, known)}")
    try:
        return config.in_full()
    except pydantic.ValidationError as error:
        raise UsageError(f"{where}: {_one_line(error, config.algorithm_module().Config, 'algorithm.')}") from error


def _read(name_or_file: str) -> dict[str, Any]:
    known = presets()
    path = known.get(name_or_file, Path(name_or_file))
    if not os.path.isfile(path):  # False as well for what is too long to be a name
        raise UsageError(f"{name_or_file!r} is neither a preset nor a file{nearest(name_or_file, known)}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def _set(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise UsageError(f"--set {override!r}: write section.key=value, for instance --set run.seed=1")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {override!r}: {part} is a value, not a section")
    table[parts[-1]] = value


def _one_line(error: pydantic.ValidationError, model: Any, prefix: str) -> str:
    """The first finding, as a person would say it."""
    found = error.errors()[0]
    where = prefix + ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        return f"unknown key {where}{nearest(str(found['loc'][-1]), _keys(model, found['loc'][:-1]))}"
    shown, says = repr(found["input"]), found["msg"].removeprefix("Value error, ")
    if len(shown) > _SHOWN_CHARS:
        shown = f"{shown[:_SHOWN_CHARS]}..."
    if found["type"] in ("tuple_type", "list_type"):
        says = "input should be a list, such as [64, 64]"
    return f"{where} = {shown}: {says[0].lower()}{says[1:]}"


def _not_finite(value: Any, where: str) -> str | None:
    """Where in a value of TOML the first NaN or infinity stands; None if there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} = {value}"
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((found for key, part in inside if (found := _not_finite(part, f"{where}.{key}"))), None)


def _keys(model: Any, path: Sequence[Any]) -> list[str]:
    for part in path:
        model = model.model_fields[part].annotation
    return list(getattr(model, "model_fields", None) or model.__dataclass_fields__)
