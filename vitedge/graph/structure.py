"""Anybody's ONNX graph as inspection reads it: who makes a tensor, who reads it, what is Q/DQ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, numpy_helper

PRODUCTS = ("MatMul", "Gemm", "Conv")
INTEGER_PRODUCTS = ("QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger")
# what may stand between a DequantizeLinear and the operator that it serves
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


@dataclass(frozen=True)
class QuantizerNode:
    """One tensor with a scale: an activation's QuantizeLinear, or a weight's DequantizeLinear."""

    tensor: str
    """The activation, or the stored integers."""
    node: str
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
    """A graph with the look-ups that a reader needs. Subgraphs are not entered."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.opset = max(
            (o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0
        )
        self.outputs = {value.name for value in model.graph.output}
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers: dict[str, NodeProto] = {}
        self._users: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
            for name in filter(None, node.output):
                self._makers[name] = node
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self._stored[node.output[0]] = attribute.t

    def maker(self, name: str) -> NodeProto | None:
        """The node that computes `name`; None for inputs and constants."""
        node = self._makers.get(name)
        return None if node is None or node.op_type == "Constant" else node

    def users(self, name: str) -> list[NodeProto]:
        """The nodes that read `name`."""
        return self._users.get(name, [])

    def stored(self, name: str) -> TensorProto | None:
        """The constant called `name`."""
        return self._stored.get(name)

    def value(self, name: str) -> NDArray[Any] | None:
        """The values of the constant called `name`; None where it is computed."""
        tensor = self._stored.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def dequantize(self, name: str) -> NodeProto | None:
        """The DequantizeLinear whose values `name` holds, if only moved."""
        node = self.maker(name)
        while node is not None and node.op_type in _MOVES:
            node = self.maker(node.input[0])
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def weight(self, name: str) -> str:
        """The constant that `name` holds, if only dequantized and moved; empty for activations."""
        while name not in self._stored:
            node = self.maker(name)
            if node is None or node.op_type not in (*_MOVES, "QuantizeLinear", "DequantizeLinear"):
                return ""
            name = node.input[0]
        return name

    def weights(self, node: NodeProto) -> tuple[NDArray[Any], int] | None:
        """The constant second operand of a product as `node` reads it, and its output axis."""
        values = self.value(self.weight(node.input[1]))
        if values is None or values.ndim < 2:
            return None
        before = self.maker(node.input[1])
        if before is not None and before.op_type == "Transpose":
            values = np.swapaxes(values, -1, -2)
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return values, 0 if node.op_type == "Conv" or transposed else values.ndim - 1

    def quantizer(self, dequantize: NodeProto) -> QuantizerNode:
        """What a DequantizeLinear, and the QuantizeLinear before it, do to their tensor."""
        before = self.maker(dequantize.input[0])
        paired = before is not None and before.op_type == "QuantizeLinear"
        first = before if before is not None and paired else dequantize
        scale = self.value(dequantize.input[1])
        has_zero = len(dequantize.input) > 2 and bool(dequantize.input[2])
        zero = self.value(dequantize.input[2]) if has_zero else None
        integers = self.stored(dequantize.input[0])
        kind = integers.data_type if integers is not None else TensorProto.UINT8
        if integers is None and has_zero and (stored := self.stored(dequantize.input[2])):
            kind = stored.data_type
        kind = next((a.i for a in first.attribute if a.name == "output_dtype" and paired), kind)
        axis = next((a.i for a in dequantize.attribute if a.name == "axis"), 1)
        return QuantizerNode(
            tensor=first.input[0],
            node=first.name,
            constant=bool(self.weight(dequantize.input[0])),
            dtype=TensorProto.DataType.Name(kind).lower(),
            scale=scale,
            zero=zero,
            axis=axis if scale is not None and scale.size > 1 else None,
        )

    def quantizers(self) -> Iterator[QuantizerNode]:
        """Every Q/DQ pair and every dequantized weight, in graph order."""
        for node in self.nodes:
            if node.op_type == "DequantizeLinear":
                yield self.quantizer(node)

    def products(self) -> Iterator[tuple[NodeProto, tuple[NodeProto | None, NodeProto | None]]]:
        """Every MatMul, Gemm and Conv, and the DequantizeLinear of each of its two operands."""
        for node in self.nodes:
            if node.op_type in PRODUCTS:
                yield node, (self.dequantize(node.input[0]), self.dequantize(node.input[1]))

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The rank of every computed tensor of which ONNX can infer it."""
        return {name: len(t.shape.dim) for name, t in self._types.items() if t.HasField("shape")}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, 0 where it is open; empty where ONNX cannot infer it."""
        stored = self._stored.get(name)
        if stored is not None:
            return tuple(stored.dims)
        tensor_type = self._types.get(name)
        return (
            tuple(dim.dim_value for dim in tensor_type.shape.dim) if tensor_type is not None else ()
        )

    def kind(self, name: str) -> int:
        """The TensorProto.DataType of a tensor; UNDEFINED where ONNX cannot infer it."""
        stored = self._stored.get(name)
        if stored is not None:
            return int(stored.data_type)
        tensor_type = self._types.get(name)
        return int(tensor_type.elem_type) if tensor_type is not None else TensorProto.UNDEFINED

    @cached_property
    def _types(self) -> dict[str, TypeProto.Tensor]:
        whole = self.model.graph
        bare = ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        bare.graph.name = whole.name
        for part in ("node", "input", "output", "value_info"):
            getattr(bare.graph, part).extend(getattr(whole, part))
        for tensor in whole.initializer:
            if tensor.ByteSize() < 4096:
                bare.graph.initializer.append(tensor)
                continue
            left_out = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            left_out.data_location = TensorProto.EXTERNAL  # no shape depends on a weight's values
            left_out.external_data.add(key="location", value="left-out")
            bare.graph.initializer.append(left_out)
        graph = onnx.shape_inference.infer_shapes(bare).graph
        return {
            value.name: value.type.tensor_type
            for value in (*graph.value_info, *graph.input, *graph.output)
        }
