"""Which operators of a ViT run in INT8 or FP8 on a target, and why: the one place that decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
import onnx_ir as ir
from onnx import GraphProto, ModelProto, NodeProto

from vitedge.core.manifest import Layer
from vitedge.core.spec import Quantization
from vitedge.graph.match import TRANSPARENT, softmaxes
from vitedge.graph.structure import FLOAT_PRODUCTS, PRODUCTS, Structure
from vitedge.quant.kernels import (
    Readers,
    bias_of,
    groups_of,
    macs_per_value,
    output_channel_axis,
    quantized_outputs,
    readers_of,
    written,
)

Role = Literal["linear", "conv", "qk", "pv", "product", "heads", "recurrent"]
"""`heads`: a Linear that mixes the heads of an attention, before its softmax or after it."""

IMAGE_CHANNELS = 4
LINEAR_OPS = ("MatMul", "Gemm")
STORED_FROM = 8
"""Weights of an output channel: with fewer, its scale eats what INT8 saves."""
STORED_SHARE = 0.1
"""Of a model's weights: with fewer beside those of products in INT8, their rounding saves nothing
worth its error (a ViT's patch embedding and head are 2 to 6%)."""


def decide(model: ModelProto, target: Quantization) -> list[Layer]:
    """Decide for every operator of `model` that multiplies and accumulates, in graph order.

    Residual additions, LayerNorm, GELU and Softmax are never touched: quantizing the
    residual stream is what collapses ViTs.
    """
    graph = model.graph
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    roles, readers = _attention_roles(Structure(model)), readers_of(graph)
    dims = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    layers: list[Layer] = []
    role: str
    eight_bit = target.number_format.upper()
    for node in graph.node:
        op = node.op_type
        layers += _carried(node)
        if op in FLOAT_PRODUCTS:
            role, why = FLOAT_PRODUCTS[op], f"no {eight_bit} {op}"
            layer = Layer(node=node.name, op=op, role=role, quantized=False, why=why)
            constant = stored.get(node.input[1], ()) if len(node.input) > 1 else ()
            layers.append(_stored(layer, node, constant, target))
            continue
        weight = stored.get(node.input[1], ()) if op in ("Conv", *LINEAR_OPS) else ()
        weight_dims = len(weight)
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
        if quantized and role in ("linear", "conv"):
            sizes = dims.get(node.output[0], [])[2:]
            positions = math.prod(sizes) if sizes else 0
            quantized, why = _pays(node, weight, positions, readers, target)
            if quantized and op in target.quantized_outputs and bias_of(node) not in ("", *stored):
                quantized, why = False, f"its bias is computed: no INT8 {op} here adds that"
        if role == "product" and (weight_dims or node.input[0] in stored):
            why = "product with a constant that is no Linear's weight: not one matrix on the right"
        if quantized and role in ("qk", "pv") and (limit := _too_large(node, role, dims, target)):
            quantized, why = False, limit
        layer = Layer(node=node.name, op=op, role=role, quantized=quantized, why=why)
        layers.append(_stored(layer, node, weight, target))
    layers = _joined(graph, layers, readers, target)
    weights = {
        node.name: math.prod(stored.get(node.input[1], (0,)))
        for node in graph.node
        if len(node.input) > 1
    }
    return _worth_storing(layers, weights)


def _worth_storing(layers: list[Layer], sizes: Mapping[str, int]) -> list[Layer]:
    """`layers`, their weights stored in INT8 only where these are a good part of the model's."""
    weights = {layer.node: sizes.get(layer.node, 0) for layer in layers}
    total = sum(weights.values())
    count = sum(weights[layer.node] for layer in layers if layer.stored)
    if count >= STORED_SHARE * total:
        return [in_float(x, x.why, stored=True) if x.stored else x for x in layers]
    return [in_float(layer, layer.why) if layer.stored else layer for layer in layers]


def _joined(
    graph: GraphProto, layers: list[Layer], readers: Readers, target: Quantization
) -> list[Layer]:
    """`layers`, those in INT8, too, that read and write what others make INT8: it costs nothing.

    ONNX Runtime would quantize their weights by itself, with one scale for all channels.
    """
    nodes = {node.name: node for node in graph.node}
    places = {layer.node: place for place, layer in enumerate(layers)}
    constants = {"", *(tensor.name for tensor in graph.initializer)}
    candidates = [
        layer.node
        for layer in layers
        if layer.op in target.quantized_outputs
        and layer.stored
        and bias_of(nodes[layer.node]) in constants
    ]
    while True:
        quantized = {layer.node for layer in layers if layer.quantized}
        integers = set(quantized_outputs(graph, quantized, target.quantized_outputs).values())
        joined = []
        for name in candidates:
            output = written(nodes[name], readers)
            read = output in integers or any(user.name in quantized for user in readers[output])
            if name not in quantized and nodes[name].input[0] in integers and output and read:
                joined.append(name)
        if not joined:
            return layers
        for name in joined:
            layers[places[name]] = msgspec.structs.replace(
                layers[places[name]], quantized=True, stored=False, why="between layers in INT8"
            )


def in_float(layer: Layer, why: str, *, stored: bool = False) -> Layer:
    """`layer` with float products, and its weights `stored` in INT8 or not."""
    why = f"weights alone in INT8: {why}" if stored else why
    return msgspec.structs.replace(layer, quantized=False, stored=stored, why=why)


def _stored(layer: Layer, node: NodeProto, weight: Sequence[int], target: Quantization) -> Layer:
    """`layer`, its weights in INT8 where only its products are float and that makes them smaller.

    `weight` are the sizes of its constant, empty where it has none.
    """
    if (
        layer.quantized
        or layer.op not in target.stored
        or layer.role not in ("linear", "conv")
        or len(weight) < 2
        or math.prod(weight) < STORED_FROM * weight[output_channel_axis(node, len(weight))]
    ):
        return layer
    return msgspec.structs.replace(layer, stored=True)


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
    eight_bit = target.number_format.upper()
    if role in ("linear", "conv"):
        if op in target.operators:
            return True, "constant weights"
        return False, f"the target has no {eight_bit} {op} with a float bias and output"
    if role == "heads":
        return False, f"mixes the heads of an attention: too few channels to gain by {eight_bit}"
    if role in target.attention:
        return True, f"attention product, {eight_bit} on this target"
    if role == "product":
        return False, "product of two activations outside attention"
    return False, "attention product, float on this target"


def _pays(
    node: NodeProto, weight: Sequence[int], positions: int, readers: Readers, target: Quantization
) -> tuple[bool, str]:
    """Whether INT8 makes a layer faster, one that the target has a kernel for.

    `positions` are those of its output, 0 where they are not known.
    """
    if node.op_type not in target.quantized_outputs:
        return True, "constant weights"
    density, enough = macs_per_value(node, weight), target.pays_from
    if density < enough:
        return False, (
            f"{density:.2g} MACs for each value it reads and writes: INT8 pays from {enough:g} on"
        )
    macs = positions * math.prod(weight)
    if 0 < macs < target.pays_from_macs:
        return False, (
            f"{macs / 1e6:.2g} million MACs an image: INT8 pays from "
            f"{target.pays_from_macs / 1e6:g} on"
        )
    if weight[1] <= IMAGE_CHANNELS and groups_of(node) > 1:
        return False, f"groups of {weight[1]}: INT8 is no faster, however much they multiply"
    if weight[1] <= IMAGE_CHANNELS:
        return False, "it reads the image: INT8 would round what every token starts from"
    if not written(node, readers):
        return False, f"the model's output: no INT8 {node.op_type} on this target has a float one"
    return True, "constant weights"


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
