"""A Linear of a graph, float or INT8, and some of its output channels as one of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.graph.constants import is_constant, is_vector, shape, values
from vitedge.graph.external import constant

_QUANTIZER = ("scale", "zero_point")


@dataclass(frozen=True)
class Linear:
    """A product with constant weights (inputs, channels), float or dequantized, and its bias."""

    product: ir.Node
    weight: ir.Value
    dequantize: ir.Node | None
    bias: NDArray[np.float32] | None


def linear_of(value: ir.Value) -> Linear | None:
    """The Linear whose output is `value`."""
    last = value.producer()
    add = last if last is not None and last.op_type == "Add" else None
    product, bias = last, None
    if add is not None:
        made = next((v for v in add.inputs if v is not None and not is_constant(v)), None)
        product = made.producer() if made is not None else None
    if product is None or product.op_type != "MatMul":
        return None
    weight, dequantize = product.inputs[1], None
    if weight is not None and not is_constant(weight):
        dequantize = weight.producer()
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return None
        weight = dequantize.inputs[0]
        by_row = dequantize.attributes.get_int("axis", 1) not in (1, -1)
        if by_row and shape(dequantize.inputs[1]):
            return None
    if weight is None or not is_constant(weight) or len(shape(weight)) != 2:
        return None
    if add is not None:
        bias = linear_bias(add, product.outputs[0], shape(weight)[1])
        if bias is None:
            return None
    return Linear(product, weight, dequantize, bias)


def linear_bias(add: ir.Node, product: ir.Value, width: int) -> NDArray[np.float32] | None:
    """What an Add gives each of the `width` output channels of `product`; None where it does more.

    It is the only reader of `product`.
    """
    if add.op_type != "Add" or product.consumers() != (add,) or product.is_graph_output():
        return None
    (other,) = [value for value in add.inputs if value is not product] or [None]
    if not is_vector(other) or shape(other)[-1] != width:
        return None
    return values(other).reshape(-1)


class Cut:
    """Some output channels of a Linear as a Linear of their own, put before it."""

    def __init__(self, graph: ir.Graph, linear: Linear, name: str, first: int, width: int) -> None:
        self._graph, self._linear, self._name = graph, linear, name
        self._channels = slice(first, first + width)
        self._whole = width == shape(linear.weight)[1]

    def product(self) -> ir.Value:
        """Without the bias."""
        linear = self._linear
        if self._whole:
            return linear.product.outputs[0]
        weight = self._constant(values(linear.weight), "weight")
        if linear.dequantize is not None:
            inputs = [
                self._constant(values(value), kind) if shape(value) else value
                for value, kind in zip(linear.dequantize.inputs[1:], _QUANTIZER, strict=False)
            ]
            axis = linear.dequantize.attributes.get_int("axis", 1)
            weight = self._node("DequantizeLinear", [weight, *inputs], axis=axis)
        return self._node("MatMul", [linear.product.inputs[0], weight])

    def output(self) -> ir.Value:
        """With the bias."""
        product, bias = self.product(), self._linear.bias
        if bias is None:
            return product
        if self._whole:
            return product.consumers()[0].outputs[0]
        return self._node("Add", [product, self._constant(bias, "bias")])

    def _constant(self, array: NDArray[Any], kind: str) -> ir.Value:
        part = np.ascontiguousarray(array[..., self._channels])
        return constant(self._graph, f"{self._name}/{kind}", part)

    def _node(self, kind: str, inputs: Sequence[ir.Value | None], **attributes: int) -> ir.Value:
        node = ir.node(kind, inputs, attributes, name=f"{self._name}/{kind}")
        node.outputs[0].name = f"{self._name}/{kind}"
        self._graph.insert_before(self._linear.product, node)
        return node.outputs[0]
