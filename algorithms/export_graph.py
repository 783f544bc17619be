"""An ONNX graph under way, written node by node (export.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from headrace.common.types import Array, Field

#: Has LayerNormalization, and is three years old.
OPSET, IR_VERSION = 20, 9


class Graph:
    """Nodes and constants; their names are counted, but for those that a network came with."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """One node; the name of its output."""
        output = output or f"headrace.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: Array) -> str:
        name = f"headrace.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def columns(self, x: str, first: int, last: int = np.iinfo(np.int64).max, output: str = "") -> str:
        """Those of ``x`` from ``first`` up to ``last``, along its second axis."""
        starts, ends, axes = (self.constant(np.array([n], np.int64)) for n in (first, last, 1))
        return self.add("Slice", x, starts, ends, axes, output=output)

    def model(self, given: Mapping[str, Field], found: Mapping[str, Field]) -> bytes:
        """The whole file, checked; inputs and outputs [batch, ...] by name."""
        inputs, outputs = ([_info(name, field) for name, field in fields.items()] for fields in (given, found))
        made = helper.make_graph(self.nodes, "policy", inputs, outputs, self.constants)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "headrace"
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def _info(name: str, field: Field) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(field.dtype))
    return helper.make_tensor_value_info(name, kind, ["batch", *field.shape])
