"""Every setting there is: its key, its value in a config, its default, what it may be, and what it is for.

    settings(load("cartpole-ppo"))    one Setting a key, in the order of launch/config.py, the algorithm's own included
    named("seed")                     which of them somebody means who writes `--seed 1`

Ranges are those that pydantic holds, told by its JSON Schema; explanations are the docstrings under the fields.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from headrace.algorithms import ALGORITHMS, module_of
from headrace.launch.attribute_docs import attribute_docs
from headrace.launch.config import Config

_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_TYPES = {"boolean": "true or false", "object": "table", "string": "text"}


@dataclass(frozen=True)
class Setting:
    """``value`` and ``default`` as TOML has them; None: not set. ``kind``: type and range in words."""

    key: str
    value: Any
    default: Any
    kind: str
    explanation: str


def settings(config: Config) -> list[Setting]:
    """Every setting of a checked config, those of its algorithm included."""
    table = config.model_dump(mode="json")
    found: list[Setting] = []
    for section, field in Config.model_fields.items():
        owner: Any = config.algorithm_module().Config if section == "algorithm" else field.annotation
        if section == "algorithm":
            found.append(_algorithm_name(config))
        kinds, said = TypeAdapter(owner).json_schema()["properties"], attribute_docs(owner)
        found += [
            Setting(f"{section}.{key}", table[section].get(key), default, in_words(kinds[key]), said.get(key, ""))
            for key, default in _defaults(owner).items()
        ]
    return found


def about(section: str, config: Config) -> str:
    """What a section is, in a line: the first of its class's docstring."""
    owner: Any = config.algorithm_module().Config
    if section != "algorithm":
        owner = Config.model_fields[section].annotation
    return (owner.__doc__ or "").strip().partition("\n\n")[0]


def named(name: str) -> list[str]:
    """Every ``section.key`` that ``name`` is the whole of, or the key; those of any algorithm included."""
    wanted = name.replace("-", "_")
    known = [f"{section}.{key}" for section in Config.model_fields for key in _keys(section)]
    return [setting for setting in known if wanted in (setting, setting.partition(".")[2])]


def in_words(schema: Mapping[str, Any]) -> str:
    """Type and range of a value, from its JSON Schema. TOML has no null: a value that may be none is left out."""
    if "anyOf" in schema:
        return " or ".join(in_words(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "value")
    if kind == "array":
        inner = in_words(schema.get("items", {}))
        return f"list of ({inner})" if " " in inner else f"list of {inner}"
    if "pattern" in schema:
        return f"text that matches `{schema['pattern']}`"
    limits = [f"{sign} {_number(schema[name])}" for name, sign in _LIMITS.items() if name in schema]
    return " ".join([schema.get("format") or _TYPES.get(kind, kind), " and ".join(limits)]).strip()


def as_toml(value: Any) -> str:
    """A value as it would be written after ``key =``; "not set" for None, which TOML cannot say."""
    if value is None:
        return "not set"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_toml_key(key)} = {as_toml(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return str(value)


def _number(limit: float) -> str:
    return as_toml(int(limit) if limit == int(limit) else limit)


def _toml_key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _algorithm_name(config: Config) -> Setting:
    kind = f"{' or '.join(json.dumps(name) for name in sorted(ALGORITHMS))} or your own"
    default = Config.model_fields["algorithm"].get_default()["name"]
    said = attribute_docs(Config)["algorithm"]
    return Setting("algorithm.name", config.algorithm["name"], default, kind, said)


def _defaults(owner: Any) -> dict[str, Any]:
    """The default of every field of a model or dataclass, in order; None also for one that has to be given."""
    if not dataclasses.is_dataclass(owner):
        made = {key: field.get_default(call_default_factory=True) for key, field in owner.model_fields.items()}
    else:
        made = {field.name: _default(field) for field in dataclasses.fields(owner) if field.init}
    found: dict[str, Any] = to_jsonable_python(made)
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _keys(section: str) -> Iterable[str]:
    if section != "algorithm":
        return getattr(Config.model_fields[section].annotation, "model_fields", {})
    modules = [module_of(name) for name in ALGORITHMS]
    return sorted({"name", *(key for module in modules for key in module.Config.__dataclass_fields__)})
