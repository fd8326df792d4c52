"""Which operators of a ViT run in INT8 on a target, and why: the one place that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from onnx import GraphProto, NodeProto

from vitedge.core.manifest import Layer
from vitedge.core.spec import Quantization

Role = Literal["linear", "conv", "qk", "pv", "product"]

LINEAR_OPS = ("MatMul", "Gemm")
# what may stand between an attention product and its softmax
_TRANSPARENT = ("Mul", "Div", "Add", "Where", "Cast", "Reshape", "Dropout", "Identity", "Transpose")


def decide(graph: GraphProto, target: Quantization) -> list[Layer]:
    """Decide for every MatMul, Gemm and Conv of `graph`, in graph order.

    Residual additions, LayerNorm, GELU and Softmax are never touched: quantizing the
    residual stream is what collapses ViTs.
    """
    stored = {tensor.name for tensor in graph.initializer if len(tensor.dims) >= 2}
    users: dict[str, list[NodeProto]] = {}
    makers: dict[str, NodeProto] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
        for name in node.output:
            makers[name] = node
    dims = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    layers = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in stored:
            role: Role = "conv"
        elif node.op_type in LINEAR_OPS and node.input[1] in stored:
            role = "linear"
        elif node.op_type == "MatMul":
            role = _product_role(node, users, makers)
        else:
            continue
        quantized, why = _verdict(node.op_type, role, target)
        if quantized and role in ("qk", "pv") and (limit := _too_large(node, role, dims, target)):
            quantized, why = False, limit
        layers.append(
            Layer(node=node.name, op=node.op_type, role=role, quantized=quantized, why=why)
        )
    return layers


def _verdict(op: str, role: Role, target: Quantization) -> tuple[bool, str]:
    if role in ("linear", "conv"):
        if op in target.operators:
            return True, "constant weights"
        return False, f"the target has no INT8 {op} with a float bias and output"
    if role in target.attention:
        return True, "attention product, INT8 on this target"
    if role == "product":
        return False, "product of two activations outside attention"
    return False, "attention product, float on this target"


def _too_large(
    node: NodeProto, role: Role, dims: Mapping[str, list[int]], target: Quantization
) -> str:
    """Why an attention product is beyond what the target fuses; empty where it is not."""
    left, right = (dims.get(name, []) for name in node.input)
    if len(left) < 2 or len(right) < 2:
        return ""
    head, tokens = (left[-1], right[-1]) if role == "qk" else (right[-1], right[-2])
    if target.attention_head_sizes and head not in target.attention_head_sizes:
        return f"heads of {head} channels, which the target has no INT8 attention for"
    if 0 < target.attention_max_tokens < tokens:
        return f"{tokens} tokens, more than the target's INT8 attention takes"
    return ""


def _product_role(
    node: NodeProto,
    users: Mapping[str, list[NodeProto]],
    makers: Mapping[str, NodeProto],
) -> Role:
    """Whether a product of two activations is Q·Kᵀ (feeds a softmax) or P·V (fed by one)."""
    upstream = makers.get(node.input[0])
    while upstream is not None and upstream.op_type in _TRANSPARENT:
        upstream = makers.get(upstream.input[0])
    if upstream is not None and upstream.op_type == "Softmax":
        return "pv"
    downstream = users.get(node.output[0], [])
    while len(downstream) == 1 and downstream[0].op_type in _TRANSPARENT:
        downstream = users.get(downstream[0].output[0], [])
    if downstream and all(user.op_type == "Softmax" for user in downstream):
        return "qk"
    return "product"
