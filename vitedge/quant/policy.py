"""Which operators of a ViT run in INT8 on a target, and why: the one place that decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
import onnx_ir as ir
from onnx import ModelProto, NodeProto

from vitedge.core.manifest import Layer
from vitedge.core.spec import Quantization
from vitedge.graph.match import TRANSPARENT, softmaxes
from vitedge.graph.structure import FLOAT_PRODUCTS, PRODUCTS, Structure

Role = Literal["linear", "conv", "qk", "pv", "product", "heads", "recurrent"]
"""`heads`: a Linear that mixes the heads of an attention, before its softmax or after it."""

LINEAR_OPS = ("MatMul", "Gemm")


def decide(model: ModelProto, target: Quantization) -> list[Layer]:
    """Decide for every operator of `model` that multiplies and accumulates, in graph order.

    Residual additions, LayerNorm, GELU and Softmax are never touched: quantizing the
    residual stream is what collapses ViTs.
    """
    graph = model.graph
    stored = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    roles = _attention_roles(Structure(model))
    dims = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    layers: list[Layer] = []
    role: str
    for node in graph.node:
        op = node.op_type
        layers += _carried(node)
        if op in FLOAT_PRODUCTS:
            role, why = FLOAT_PRODUCTS[op], f"no INT8 {op}"
            layers.append(Layer(node=node.name, op=op, role=role, quantized=False, why=why))
            continue
        weight_dims = stored.get(node.input[1], 0) if op in ("Conv", *LINEAR_OPS) else 0
        if op in ("Conv", "MatMul") and node.output[0] in roles:
            role = roles[node.output[0]]
        elif op == "Conv" and weight_dims > 1:
            role = "conv"
        elif op in LINEAR_OPS and weight_dims == 2:
            role = "linear"
        elif op == "MatMul":
            role = "product"
        else:
            continue
        quantized, why = _verdict(op, role, target)
        if role == "product" and (weight_dims or node.input[0] in stored):
            why = "product with a constant that is no Linear's weight: not one matrix on the right"
        if quantized and role in ("qk", "pv") and (limit := _too_large(node, role, dims, target)):
            quantized, why = False, limit
        layers.append(Layer(node=node.name, op=op, role=role, quantized=quantized, why=why))
    return layers


def _carried(outer: NodeProto) -> Iterator[Layer]:
    """What multiplies and accumulates inside an If or a loop: it runs in float, as it came."""
    for attribute in outer.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for node in graph.node:
                op, name = node.op_type, f"{outer.name}/{node.name}"
                if op in (*PRODUCTS, *FLOAT_PRODUCTS):
                    role = FLOAT_PRODUCTS.get(op, "conv" if op == "Conv" else "product")
                    why = f"inside the {outer.op_type} '{outer.name}', which runs in float"
                    yield Layer(node=name, op=op, role=role, quantized=False, why=why)
                yield from (
                    msgspec.structs.replace(layer, node=f"{outer.name}/{layer.node}")
                    for layer in _carried(node)
                )


def _verdict(op: str, role: str, target: Quantization) -> tuple[bool, str]:
    if role in ("linear", "conv"):
        if op in target.operators:
            return True, "constant weights"
        return False, f"the target has no INT8 {op} with a float bias and output"
    if role == "heads":
        return False, "mixes the heads of an attention: too few channels to gain by INT8"
    if role in target.attention:
        return True, "attention product, INT8 on this target"
    if role == "product":
        return False, "product of two activations outside attention"
    return False, "attention product, float on this target"


def _too_large(
    node: NodeProto, role: str, dims: Mapping[str, list[int]], target: Quantization
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
    """By output: Q·Kᵀ that softmaxes alone read, P·V with P on the left, and Linears over heads."""
    roles: dict[str, Role] = {}
    for pattern in softmaxes(graph):
        before, after = pattern.before, pattern.after
        if before and _only_softmaxes_read(before.outputs[0], pattern.mixes):
            roles[before.outputs[0].name or ""] = "qk"
        if after and after.inputs[0] is pattern.probabilities:
            roles[after.outputs[0].name or ""] = "pv"
        roles |= {mix.outputs[0].name or "": "heads" for mix in pattern.mixes}
    return roles


def _only_softmaxes_read(scores: ir.Value, mixes: Sequence[ir.Node]) -> bool:
    users = scores.consumers()
    while len(users) == 1 and (users[0].op_type in TRANSPARENT or users[0] in mixes):
        users = users[0].outputs[0].consumers()
    return all(user.op_type == "Softmax" for user in users)
