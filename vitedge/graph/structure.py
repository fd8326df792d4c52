"""Anybody's ONNX graph as inspection reads it: who makes a tensor, who reads it, what is Q/DQ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto
from onnx_ir.passes.common import ShapeInferencePass

from vitedge.graph.constants import is_constant, names_of, shape, values

PRODUCTS = ("MatMul", "Gemm", "Conv")
FLOAT_PRODUCTS = {
    **{"ConvTranspose": "conv", "Einsum": "product"},
    **{"LSTM": "recurrent", "GRU": "recurrent", "RNN": "recurrent"},
}
"""Further operators that multiply and accumulate, and their role; no runtime's INT8 is for them."""
INTEGER_PRODUCTS = ("QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger")
# what may stand between a DequantizeLinear and the operator that it serves
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


@dataclass(frozen=True)
class QuantizerNode:
    """One tensor with a scale: an activation's QuantizeLinear, or a weight's DequantizeLinear."""

    tensor: str
    """The activation, or the stored integers."""
    node: str | None
    constant: bool
    """Whether it is a weight."""
    dtype: str
    """numpy's name of the stored type, e.g. `int8`."""
    scale: NDArray[Any] | None
    """() or (channels,); None where the graph computes it."""
    zero: NDArray[Any] | None
    """As `scale`; None where there is none."""
    axis: int | None
    """None with one scale for the whole tensor."""


class Structure:
    """A graph with the look-ups that a reader needs: `onnx_ir` links its nodes and values.

    Subgraphs are not entered.
    """

    def __init__(self, model: ModelProto | ir.Model, *, infer: bool = False) -> None:
        """With `infer`, every value has the type and shape that ONNX can infer."""
        self.model = model.clone() if isinstance(model, ir.Model) else ir.from_proto(model)
        if infer:
            ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(self.model)
        self.nodes = list(self.model.graph)
        opsets = self.model.opset_imports
        self.opset = max(opsets.get("", 0), opsets.get("ai.onnx", 0))
        for node in self.nodes:
            if node.op_type == "Constant" and "value" in node.attributes:
                node.outputs[0].const_value = node.attributes.get_tensor("value")

    def quantizers(self) -> Iterator[QuantizerNode]:
        """Every Q/DQ pair and every dequantized weight, in graph order."""
        for node in self.nodes:
            if node.op_type == "DequantizeLinear" or stored_integers(node):
                yield read_quantizer(node)

    def products(self) -> Iterator[tuple[ir.Node, tuple[ir.Node | None, ir.Node | None]]]:
        """Every MatMul, Gemm and Conv, and the DequantizeLinear of each of its two operands."""
        for node in self.nodes:
            if node.op_type in PRODUCTS:
                yield node, (dequantize(node.inputs[0]), dequantize(node.inputs[1]))


def maker(value: ir.Value | None) -> ir.Node | None:
    """The node that computes `value`; None for inputs and constants."""
    return None if value is None or is_constant(value) else value.producer()


def dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear whose values `value` holds, if only moved."""
    node = maker(value)
    while node is not None and node.op_type in MOVES:
        node = maker(node.inputs[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def weight(value: ir.Value | None) -> ir.Value | None:
    """The constant that `value` holds, if only dequantized and moved; None for activations."""
    while value is not None and not is_constant(value):
        node = value.producer()
        if node is not None and (integers := stored_integers(node)):
            return integers
        if node is None or node.op_type not in (*MOVES, "QuantizeLinear", "DequantizeLinear"):
            return None
        value = node.inputs[0]
    return value


def stored_integers(scale: ir.Node) -> ir.Value | None:
    """The stored INT8 weight that a Cast and the Mul `scale` make float; None of other nodes."""
    cast = maker(scale.inputs[0]) if scale.op_type == "Mul" else None
    if cast is None or cast.op_type != "Cast" or not is_constant(scale.inputs[1]):
        return None
    integers = cast.inputs[0]
    constant = integers.const_value if integers is not None else None
    return integers if constant is not None and constant.dtype == ir.DataType.INT8 else None


def weights(node: ir.Node) -> tuple[NDArray[Any], int] | None:
    """The constant second operand of a product as `node` reads it, and its output axis."""
    constant = weight(node.inputs[1])
    if constant is None or len(shape(constant)) < 2:
        return None
    array, before = values(constant), maker(node.inputs[1])
    if before is not None and before.op_type == "Transpose":
        array = np.swapaxes(array, -1, -2)
    return array, output_axis(node, array.ndim)


def output_axis(product: ir.Node, ndim: int) -> int:
    """The axis of the output channels in the weight of `product`, which has `ndim` axes."""
    transposed = product.attributes.get_int("transB", 0)
    return 0 if product.op_type == "Conv" or transposed else ndim - 1


def sizes(value: ir.Value | None) -> tuple[int, ...]:
    """The shape of `value`, 0 where it is open; empty where it is not known."""
    dims = value.shape if value is not None else None
    return tuple(size if isinstance(size, int) else 0 for size in dims or ())


def read_quantizer(node: ir.Node) -> QuantizerNode:
    """What a DequantizeLinear, and the QuantizeLinear before it, do to their tensor.

    Likewise of the Mul that gives a weight its scales, which is stored in INT8.
    """
    if (constant := stored_integers(node)) is not None:
        steps = values(node.inputs[1])
        axis = next((i for i, size in enumerate(steps.shape) if size > 1), None)
        name = names_of([constant])[0]
        return QuantizerNode(name, node.name, True, "int8", steps.reshape(-1), None, axis)
    integers, scale, zero = (*node.inputs, None)[:3]
    before = maker(integers)
    first = before if before is not None and before.op_type == "QuantizeLinear" else node
    stored = next(filter(is_constant, (integers, zero)), None)
    kind = stored.dtype if stored is not None and stored.dtype else ir.DataType.UINT8
    if first is not node:
        kind = ir.DataType(first.attributes.get_int("output_dtype", kind))
    factors = values(scale) if is_constant(scale) else None
    return QuantizerNode(
        tensor=names_of(first.inputs)[0],
        node=first.name,
        constant=weight(integers) is not None,
        dtype=kind.name.lower(),
        scale=factors,
        zero=values(zero) if is_constant(zero) else None,
        axis=node.attributes.get_int("axis", 1)
        if factors is not None and factors.size > 1
        else None,
    )
