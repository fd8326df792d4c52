"""QDQ graphs in the making, as TensorRT takes them unless asked otherwise: x -> … -> y."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

TOKENS, WIDTH = 16, 64


def integers(*shape: int, seed: int = 0) -> NDArray[np.int8]:
    """INT8 weights none of which is zero."""
    random = np.random.default_rng(seed)
    return (random.integers(1, 100, shape) * random.choice([-1, 1], shape)).astype(np.int8)


class QDQ:
    """x (1, TOKENS, WIDTH) -> … -> y; constants and scales in `floats`."""

    def __init__(self, floats: type = np.float16) -> None:
        self.floats = floats
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(self.floats)
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], f"{output}/{op}", **attributes))
        return output

    def activation(self, name: str, scale: Any = 0.05, zero: Any = 0, kind: Any = np.int8) -> str:
        """Q/DQ on an activation; a list of scales is one for each of its last axis."""
        scale = np.asarray(scale, np.float64)
        axis = {"axis": 2} if scale.ndim else {}
        self.constant(f"{name}.s", scale)
        self.constant(f"{name}.z", np.full(scale.shape, zero, kind))
        self.add("QuantizeLinear", [name, f"{name}.s", f"{name}.z"], f"{name}.q", **axis)
        parts = [f"{name}.q", f"{name}.s", f"{name}.z"]
        return self.add("DequantizeLinear", parts, f"{name}.dq", **axis)

    def weight(
        self, name: str, values: NDArray[Any], axis: int = 1, scale: Any = 0.01, zero: int = 0
    ) -> str:
        """A stored INT8 weight with a scale a channel of `axis`."""
        scales = np.broadcast_to(np.asarray(scale, np.float64), values.shape[axis])
        self.constant(f"{name}.i", values)
        self.constant(f"{name}.s", scales)
        self.constant(f"{name}.z", np.full(scales.shape, zero, values.dtype))
        parts = [f"{name}.i", f"{name}.s", f"{name}.z"]
        return self.add("DequantizeLinear", parts, f"{name}.dq", axis=axis)

    def linear(self, source: str, output: str, wide: int = WIDTH, **weight: Any) -> str:
        """Q/DQ, MatMul and the float bias; `source` may be dequantized already."""
        left = source if source.endswith(".dq") else self.activation(source)
        values = weight.pop("values", integers(weight.pop("deep", WIDTH), wide))
        right = self.weight(f"{output}.w", values, **weight)
        self.add("MatMul", [left, right], f"{output}.m")
        bias = self.constant(f"{output}.b", np.ones(values.shape[1]))
        return self.add("Add", [f"{output}.m", bias], output)

    def norm(self, source: str, output: str) -> str:
        gamma = self.constant(f"{output}.gamma", np.ones(WIDTH))
        beta = self.constant(f"{output}.beta", np.zeros(WIDTH))
        return self.add("LayerNormalization", [source, gamma, beta], output)

    def headed(self, source: str, output: str, head: int, order: list[int]) -> str:
        """(B, T, W) -> (B, heads, T, head), or the order asked for."""
        shape = self.constant(f"{output}.shape", np.array([0, 0, -1, head]))
        self.add("Reshape", [source, shape], f"{output}.r")
        return self.add("Transpose", [f"{output}.r"], output, perm=order)

    def merged(self, source: str, output: str, wide: int = WIDTH) -> str:
        self.add("Transpose", [source], f"{output}.t", perm=[0, 2, 1, 3])
        return self.add("Reshape", [f"{output}.t", self.constant(f"{output}.shape",
                        np.array([0, 0, wide]))], output)  # fmt: skip

    def model(
        self, batch: int | str = 1, opset: int = 20, tokens: int = TOKENS, wide: int = WIDTH
    ) -> ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.floats))
        graph = helper.make_graph(
            self.nodes,
            "trap",
            [helper.make_tensor_value_info("x", kind, [batch, tokens, wide])],
            [helper.make_empty_tensor_value_info("y")],
            self.tensors,
        )
        domains = {node.domain for node in self.nodes} - {""}
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        typed = onnx.shape_inference.infer_shapes(model)
        result = typed.graph.output[0]
        if not result.type.tensor_type.elem_type:  # another domain's operator made it
            result = helper.make_tensor_value_info("y", kind, [batch, tokens, wide])
        model.graph.output[0].CopyFrom(result)
        return model
