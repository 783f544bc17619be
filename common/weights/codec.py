"""Weights <-> bytes: one safetensors file per version, readable by any safetensors library.

    u64 little-endian: header bytes | header: JSON, padded with spaces to a multiple of 8 | tensors, one after another

The header gives each tensor its dtype, shape and place. What else belongs to a version stands in the header's
``__metadata__`` under the one key ``headrace``, as JSON: format, run_id, learner_epoch, version, scalars, and where
they are known env_steps and trained_s.

Version rule. ``format`` is 1. A reader takes exactly the formats it knows and refuses others under ``version``; keys it
does not know inside ``headrace`` are ignored. The golden bytes under tests/common/golden/ must decode for ever.

Written and read here, not by the safetensors library, because that library copies every tensor twice on the way out
and once on the way in; here tensors are views. Tests hold both to the same bytes. Nothing is parsed before its size has
been checked against a cap. Format: github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from headrace.common.errors import Rejected
from headrace.common.types import Array, Weights

FORMAT = 1
MAX_HEADER_BYTES = 4 << 20
MAX_NDIM = 16

_LENGTH = struct.Struct("<Q")
_NAME_OF = {
    "float64": "F64", "float32": "F32", "int64": "I64", "int32": "I32", "uint32": "U32",
    "int16": "I16", "uint16": "U16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_DTYPE_OF = {code: np.dtype(name).newbyteorder("<") for name, code in _NAME_OF.items()}


def encode_parts(weights: Weights) -> list[bytes | memoryview]:
    """The file as pieces in order, tensors not copied: the caller joins them while they hold still.

    Raises :class:`Rejected` for a dtype that may not travel or a header over the cap.
    """
    entries: dict[str, Any] = {"__metadata__": {"headrace": _metadata(weights)}}
    tensors: list[Array] = []
    offset = 0
    for name in sorted(weights.tensors, key=lambda n: (-weights.tensors[n].dtype.itemsize, n)):
        array = weights.tensors[name]
        if array.dtype.name not in _NAME_OF:
            raise Rejected("dtype", f"tensor {name!r} is {array.dtype.name}; these travel: {', '.join(_NAME_OF)}")
        entries[name] = {
            "dtype": _NAME_OF[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        tensors.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
        offset += array.nbytes
    header = json.dumps(entries, separators=(",", ":"), allow_nan=False).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER_BYTES:
        raise Rejected("size", f"weights header of {len(header)} bytes is over {MAX_HEADER_BYTES}")
    return [_LENGTH.pack(len(header)) + header, *(t.reshape(-1).view(np.uint8).data for t in tensors)]


def encode(weights: Weights) -> bytes:
    """The file in one piece."""
    return b"".join(encode_parts(weights))


def decode(content: bytes | memoryview) -> Weights:
    """The version in ``content``; tensors are read-only views of it. Raises :class:`Rejected` if it is malformed."""
    data = memoryview(content).toreadonly()
    entries, start = _header(data)
    about = _about(entries.pop("__metadata__", None))
    tensors: dict[str, Array] = {}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: _offsets(*item)):
        begin, after = _offsets(name, entry)
        if begin != end:
            raise Rejected("malformed", f"tensor {name!r} begins at byte {begin}, the one before ends at {end}")
        tensors[name] = _tensor(name, entry, data[start + begin : start + after], after - begin)
        end = after
    if start + end != len(data):
        raise Rejected("malformed", f"weights of {len(data)} bytes hold {start + end} bytes of header and tensors")
    return Weights(
        about["run_id"],
        about["learner_epoch"],
        about["version"],
        MappingProxyType(tensors),
        about["scalars"],
        about.get("env_steps"),
        about.get("trained_s"),
    )


def _metadata(weights: Weights) -> str:
    about: dict[str, Any] = {
        "format": FORMAT,
        "run_id": weights.run_id,
        "learner_epoch": weights.learner_epoch,
        "version": weights.version,
        "scalars": {name: float(value) for name, value in sorted(weights.scalars.items())},
    }
    when = {"env_steps": weights.env_steps, "trained_s": weights.trained_s}
    about |= {name: value for name, value in when.items() if value is not None}
    try:
        return json.dumps(about, separators=(",", ":"), allow_nan=False)
    except ValueError as e:
        raise Rejected("nan", f"scalars of version {weights.version} must be finite: {dict(weights.scalars)}") from e


def _json(text: bytes | str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise Rejected("malformed", f"{what} is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise Rejected("malformed", f"{what} is not a JSON object")
    return value


def _header(data: memoryview) -> tuple[dict[str, Any], int]:
    """The parsed header, and where the tensors start."""
    if len(data) < _LENGTH.size:
        raise Rejected("malformed", f"weights of {len(data)} bytes end before their header")
    (length,) = _LENGTH.unpack_from(data)
    if length > MAX_HEADER_BYTES:
        raise Rejected("size", f"weights header of {length} bytes is over {MAX_HEADER_BYTES}")
    if _LENGTH.size + length > len(data):
        raise Rejected("malformed", f"weights of {len(data)} bytes end inside their header of {length} bytes")
    return _json(bytes(data[_LENGTH.size : _LENGTH.size + length]), "weights header"), _LENGTH.size + length


def _about(metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("headrace"), str):
        raise Rejected("malformed", "weights carry no headrace metadata")
    about = _json(metadata["headrace"], "weights metadata")
    if about.get("format") != FORMAT:
        raise Rejected("version", f"weights of format {about.get('format')!r}; this reader knows {FORMAT}")
    scalars = about.get("scalars")
    whole = all(isinstance(about.get(k), int) and about[k] >= 0 for k in ("learner_epoch", "version"))
    if not whole or not isinstance(about.get("run_id"), str) or not isinstance(scalars, dict):
        raise Rejected("malformed", "weights metadata lacks run_id, learner_epoch, version or scalars")
    if not all(isinstance(v, float | int) and math.isfinite(v) for v in scalars.values()):
        raise Rejected("nan", f"scalars of the weights must be finite numbers: {scalars}")
    steps, trained_s = about.get("env_steps", 0), about.get("trained_s", 0.0)
    if (
        type(steps) is not int
        or not 0 <= steps < 1 << 63
        or type(trained_s) not in (int, float)
        or not 0 <= trained_s < math.inf
    ):
        raise Rejected("malformed", f"weights made after {steps!r} steps and {trained_s!r} seconds")
    about["scalars"] = MappingProxyType({name: float(v) for name, v in scalars.items()})
    return about


def _offsets(name: str, entry: object) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(o) is int for o in offsets):
        raise Rejected("malformed", f"tensor {name!r} has no place in the file")
    if not 0 <= offsets[0] <= offsets[1]:
        raise Rejected("malformed", f"tensor {name!r} ends before it begins: {offsets}")
    return offsets[0], offsets[1]


def _tensor(name: str, entry: Mapping[str, Any], data: memoryview, nbytes: int) -> Array:
    dtype, shape = _DTYPE_OF.get(str(entry.get("dtype"))), entry.get("shape")
    if dtype is None:
        raise Rejected("dtype", f"tensor {name!r} is {entry.get('dtype')!r}; these travel: {', '.join(_DTYPE_OF)}")
    if not isinstance(shape, list) or len(shape) > MAX_NDIM or not all(type(n) is int and n >= 0 for n in shape):
        raise Rejected("shape", f"tensor {name!r} has the shape {shape!r}")
    if math.prod(shape) * dtype.itemsize != nbytes or len(data) != nbytes:
        raise Rejected("shape", f"tensor {name!r} of shape {shape} and {dtype.name} does not fill its {nbytes} bytes")
    if dtype == np.bool_ and nbytes and np.frombuffer(data, np.uint8).max() > 1:
        raise Rejected("malformed", f"tensor {name!r} is bool and holds bytes other than 0 and 1")
    return np.frombuffer(data, dtype).reshape(shape)
