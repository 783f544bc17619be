"""What a config names of its user's own, as ``package.module:attribute``: environments, wrappers, algorithms.

make_env = own_code.fetch("my_package.my_module:make_env", "task.env")
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from headrace.common.errors import UsageError

_CAUSE_CHARS = 300


def _begun_in() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # the folder was removed meanwhile
        return ""


#: Where the process began: an environment may change the working directory later.
_HERE = _begun_in()


def load_module(name: str, setting: str) -> ModuleType:
    """The module ``name`` (dotted), from what is installed, PYTHONPATH, or the folder that the process began in. Raises
    :class:`UsageError` in one line that names ``setting`` when it cannot be imported, whatever it raised."""
    if _HERE and _HERE not in sys.path:
        sys.path.append(_HERE)  # last: a file of the user's must not stand in for one of Python's
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{setting}: {name} cannot be imported from {_HERE}, from PYTHONPATH or as installed: {cause(error)}"
        ) from error


def fetch(path: str, setting: str) -> Any:
    """What ``package.module:attribute`` names. Raises :class:`UsageError`, naming ``setting``."""
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute.isidentifier():
        raise UsageError(f"{setting} {path!r}: write package.module:attribute")
    module = load_module(module_name, f"{setting} {path!r}")
    if not hasattr(module, attribute):
        raise UsageError(f"{setting} {path!r}: {module.__file__ or module_name} has no {attribute!r}")
    return getattr(module, attribute)


def where(thing: object) -> str:
    """The file and line in which ``thing`` (a class or a function) is written, as far as Python knows."""
    try:
        return f"{inspect.getsourcefile(thing)}, line {inspect.getsourcelines(thing)[1]}"  # type: ignore[arg-type]
    except (TypeError, OSError):
        return repr(thing)


def cause(error: BaseException) -> str:
    """What a foreign exception says and where it was raised, in one line."""
    frames = extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    return f"{text[:_CAUSE_CHARS]}{place}"
