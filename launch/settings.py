"""Which settings somebody means who writes ``--seed 1`` where ``--set run.seed=1`` would be right."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.algorithms import ALGORITHMS, module_of
from headrace.launch.config import Config


def named(name: str) -> list[str]:
    """Every ``section.key`` that ``name`` is the whole of, or the key; those of any algorithm included."""
    wanted = name.replace("-", "_")
    known = [f"{section}.{key}" for section in Config.model_fields for key in _keys(section)]
    return [setting for setting in known if wanted in (setting, setting.partition(".")[2])]


def _keys(section: str) -> Iterable[str]:
    if section != "algorithm":
        return getattr(Config.model_fields[section].annotation, "model_fields", {})
    modules = [module_of(name) for name in ALGORITHMS]
    return sorted({"name", *(key for module in modules for key in module.Config.__dataclass_fields__)})
