"""Hostile values for every integer field of a message, found by reflection: a new field is covered by itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

VALUES = (-1, 0, 2**31, 2**62, 2**63 - 1)
RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


class Field(NamedTuple):
    """A field by its way down from the message: ("arrays", "shape")."""

    path: tuple[str, ...]
    field: FieldDescriptor

    @property
    def name(self) -> str:
        """As a test calls it."""
        return ".".join(self.path)


def integer_fields(descriptor: Descriptor, above: tuple[str, ...] = ()) -> Iterator[Field]:
    """Every integer field, those of messages within included."""
    for field in descriptor.fields:
        path = (*above, field.name)
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            yield from integer_fields(field.message_type, path)
        elif field.cpp_type in RANGES:
            yield Field(path, field)


def values(field: FieldDescriptor) -> list[int]:
    """The hostile values that the field's type can hold."""
    low, high = RANGES[field.cpp_type]
    return [v for v in VALUES if low <= v <= high]


def changed(message: Message, path: tuple[str, ...], value: Any) -> Message:
    """A copy of the message with the field set; of repeated fields the first entry, made where there is none."""
    result = copy.deepcopy(message)
    at: Any = result
    for name in path[:-1]:
        at = getattr(at, name)
        if isinstance(at, Message):
            at.SetInParent()
        else:
            at = at[0] if len(at) else at.add()
    if isinstance(getattr(at, path[-1]), int):
        setattr(at, path[-1], value)
    else:
        entries = getattr(at, path[-1])
        entries[:] = [value, *entries[1:]]
    return result
