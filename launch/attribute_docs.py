"""The docstrings under the fields of a class, of pydantic models and dataclasses alike, inherited fields included.

Read from the source when somebody asks, so that nobody who only runs pays for it; and so that it holds for an algorithm
of the user's own, whose Config is any dataclass.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


def attribute_docs(owner: type) -> dict[str, str]:
    """The docstring under each annotated field, as one line without line breaks. A field that a subclass declares anew
    without one keeps what was said of it. Nothing is known of a class whose source cannot be had."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        found |= _declared_in(base)
    return found


@cache
def _declared_in(owner: type) -> dict[str, str]:
    if owner is BaseModel:  # has no field of anybody's, and a long source
        return {}
    try:
        (declared,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    except (OSError, TypeError):  # typed into an interpreter, or not written in Python
        return {}
    assert isinstance(declared, ast.ClassDef)
    return {
        field.target.id: " ".join(said.value.value.split())
        for field, said in pairwise(declared.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant) and isinstance(said.value.value, str)
    }
