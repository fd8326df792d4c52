"""Which operators of a ViT run in INT8 on a target, and why: the one place that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import onnx_ir as ir
from onnx import ModelProto, NodeProto

from vitedge.core.manifest import Layer
from vitedge.core.spec import Quantization
from vitedge.graph.match import TRANSPARENT, softmaxes
from vitedge.graph.structure import Structure

Role = Literal["linear", "conv", "qk", "pv", "product"]

LINEAR_OPS = ("MatMul", "Gemm")


def decide(model: ModelProto, target: Quantization) -> list[Layer]:
    """Decide for every MatMul, Gemm and Conv of `model`, in graph order.

    Residual additions, LayerNorm, GELU and Softmax are never touched: quantizing the
    residual stream is what collapses ViTs.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer if len(tensor.dims) >= 2}
    roles = _attention_roles(Structure(model))
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
            role = roles.get(node.output[0], "product")
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


def _attention_roles(graph: Structure) -> dict[str, Role]:
    """Which outputs are of Q·Kᵀ, read by softmaxes alone, and of P·V, with P on the left."""
    roles: dict[str, Role] = {}
    for pattern in softmaxes(graph):
        if pattern.before and _only_softmaxes_read(pattern.before.outputs[0]):
            roles[pattern.before.outputs[0].name or ""] = "qk"
        if pattern.after and pattern.after.inputs[0] is pattern.probabilities:
            roles[pattern.after.outputs[0].name or ""] = "pv"
    return roles


def _only_softmaxes_read(scores: ir.Value) -> bool:
    users = scores.consumers()
    while len(users) == 1 and users[0].op_type in TRANSPARENT:
        users = users[0].outputs[0].consumers()
    return all(user.op_type == "Softmax" for user in users)
