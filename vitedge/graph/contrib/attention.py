"""An attention as one operator of ONNX Runtime's, with a Linear each for Q, K and V.

An attention stays as it is where more is done to its scores, or where its heads are not channels
in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.graph.constants import evaluate, is_constant, scalar
from vitedge.graph.contrib.linear import Cut, Linear, linear_of
from vitedge.graph.contrib.operator import replace
from vitedge.graph.external import constant
from vitedge.graph.match import attentions
from vitedge.graph.run import Shapes
from vitedge.graph.structure import Structure

_MOVES = ("Reshape", "Transpose", "Split", "Slice", "Gather", "Squeeze", "Unsqueeze", "Identity")
_HEADS, _TURNED = (0, 2, 1, 3), (0, 3, 1, 2)


@dataclass(frozen=True)
class _Operand:
    """What an attention reads: channels of a tensor (B, tokens, channels), moved."""

    source: ir.Value
    scale: float
    first: int
    """The first of those channels; the others follow."""
    width: int
    """How many they are."""
    nodes: tuple[ir.Node, ...]
    """The operators that move and scale them."""


def fuse_attentions(model: ir.Model, tensors: Shapes) -> int:
    """Make attentions one operator each, in place; returns how many.

    `tensors` are the shapes of the model's tensors on some images.
    """
    count, graph = 0, model.graph
    nodes = {node.name: node for node in graph}
    for pattern in attentions(Structure(model)):
        qk, softmax, pv = (nodes[n.name] for n in (pattern.qk, pattern.softmax, pattern.pv))
        scores, joined = _scores(softmax.inputs[0], qk), _joined(pv, tensors)
        if scores is None or joined is None or softmax.outputs[0].consumers() != (pv,):
            continue
        heads, head_size = (tensors[pv.outputs[0].name][axis] for axis in (1, 3))
        axes = (_HEADS, _TURNED, _HEADS)  # of Q, K and V: to (B, tokens, heads, size)
        moved = (*qk.inputs, pv.inputs[1])
        query, key, value = (_operand(v, a, tensors) for v, a in zip(moved, axes, strict=True))
        if query is None or key is None or value is None or value.scale != 1.0:
            continue
        if query.width != key.width or value.width != heads * head_size:
            continue
        scale = scores * query.scale * key.scale
        inputs = _inputs(graph, softmax, (query, key, value), (qk, pv), tensors)
        attributes = {"num_heads": heads, "scale": scale}
        replace(graph, softmax, "MultiHeadAttention", inputs, joined, attributes)
        count += 1
    return count


def _scores(value: ir.Value | None, qk: ir.Node) -> float | None:
    """What `qk` is multiplied with to give a softmax's input; None where more is done to it."""
    factor = 1.0
    while value is not None and value.producer() is not qk:
        source, step = _factor(value)
        if source is None or len(value.consumers()) != 1:
            return None
        value, factor = source, factor * step
    alone = value is not None and len(value.consumers()) == 1 and not value.is_graph_output()
    return factor if alone else None


def _factor(value: ir.Value) -> tuple[ir.Value | None, float]:
    """What a scalar multiplies or divides to give `value`, and by how much; None: nothing."""
    node = value.producer()
    if node is None or node.op_type not in ("Mul", "Div"):
        return None, 1.0
    pairs = [tuple(node.inputs), tuple(node.inputs)[::-1]]
    for source, other in pairs[: 1 if node.op_type == "Div" else 2]:
        number = scalar(other)
        if number and source is not None and not is_constant(source):
            return source, number if node.op_type == "Mul" else 1 / number
    return None, 1.0


def _operand(value: ir.Value | None, axes: tuple[int, ...], tensors: Shapes) -> _Operand | None:
    """Where an operand of 4 axes comes from, which `axes` turn to (B, tokens, heads, size)."""
    moved: list[ir.Value] = []
    nodes: list[ir.Node] = []
    scale, source = 1.0, value
    while source is not None and (node := source.producer()) is not None:
        nodes.append(node)
        before, step = _factor(source)
        if before is not None:
            source, scale = before, scale * step
        elif node.op_type in _MOVES and node.inputs[0] is not None and not is_constant(source):
            moved.append(source)
            source = node.inputs[0]
        else:
            break
        if len(tensors[source.name]) == 3:
            first, width = _channels(source, moved, axes, tensors)
            if width:
                return _Operand(source, scale, first, width, tuple(nodes))
    return None


def _channels(
    source: ir.Value, moved: Sequence[ir.Value], axes: tuple[int, ...], tensors: Shapes
) -> tuple[int, int]:
    """First and count of the channels of `source` that are `moved` to be heads; 0 of others."""
    dims = tensors[source.name]
    whole = np.arange(math.prod(dims), dtype=np.int64).reshape(dims)
    ids = whole
    for value in reversed(moved):
        turned_ids = _moved(value, ids, tensors)
        if turned_ids is None:
            return 0, 0
        ids = turned_ids
    if ids.ndim != 4:
        return 0, 0
    turned = ids.transpose(axes)
    flat = turned.reshape(*turned.shape[:2], -1)
    if flat.shape[:2] != tuple(dims[:2]):
        return 0, 0
    first, width = int(flat[0, 0, 0]), flat.shape[2]
    kept = np.array_equal(flat, whole[..., first : first + width])
    return (first, width) if kept else (0, 0)


def _moved(value: ir.Value, ids: NDArray[np.int64], tensors: Shapes) -> NDArray[np.int64] | None:
    """`ids` of what is moved to be `value`, as that has them."""
    node = value.producer()
    assert node is not None
    if node.op_type == "Reshape":
        return ids.reshape(tensors[value.name])
    outputs = evaluate(node, {node.inputs[0]: ids})
    return outputs[value.index() or 0] if outputs else None


def _joined(pv: ir.Node, tensors: Shapes) -> ir.Value | None:
    """What is made of P·V (B, heads, tokens, size) that is (B, tokens, channels)."""
    value = pv.outputs[0]
    dims = tensors[value.name]
    if len(dims) != 4:
        return None
    ids = np.arange(math.prod(dims), dtype=np.int64).reshape(dims)
    want = ids.transpose(0, 2, 1, 3).reshape(dims[0], dims[2], -1)
    while len(value.consumers()) == 1 and not value.is_graph_output():
        node = value.consumers()[0]
        if node.op_type not in _MOVES or node.inputs[0] is not value:
            return None
        moved = _moved(node.outputs[0], ids, tensors)
        if moved is None or len(node.outputs) > 1:
            return None
        ids, value = moved, node.outputs[0]
        if np.array_equal(ids, want):
            return value
    return None


def _inputs(
    graph: ir.Graph,
    softmax: ir.Node,
    operands: Sequence[_Operand],
    products: Sequence[ir.Node],
    tensors: Shapes,
) -> list[ir.Value | None]:
    """Q, K and V, (B, tokens, channels) each, and the biases of all where these are float."""
    name = softmax.name or ""
    readers = {node for operand in operands for node in operand.nodes} | set(products)
    linears = [_linear(operand, readers) for operand in operands]
    together = all(linear is not None and linear.dequantize is None for linear in linears)
    inputs: list[ir.Value | None] = []
    for operand, linear, part in zip(operands, linears, "qkv", strict=True):
        if linear is not None:
            parts = Cut(graph, linear, f"{name}/{part}", operand.first, operand.width)
            inputs.append(parts.product() if together else parts.output())
        elif operand.width == tensors[operand.source.name][2]:
            inputs.append(operand.source)
        else:
            inputs.append(_slice(graph, softmax, operand, f"{name}/{part}"))
    if together and any(linear is not None and linear.bias is not None for linear in linears):
        biases = [
            linear.bias[o.first : o.first + o.width]
            if linear is not None and linear.bias is not None
            else np.zeros(o.width, np.float32)
            for o, linear in zip(operands, linears, strict=True)
        ]
        inputs.append(constant(graph, f"{name}/bias", np.concatenate(biases)))
    return inputs


def _slice(graph: ir.Graph, before: ir.Node, operand: _Operand, name: str) -> ir.Value:
    """The channels of an operand as a tensor of their own."""
    bounds = {"start": operand.first, "end": operand.first + operand.width, "axis": 2}
    ends = [
        constant(graph, f"{name}/{key}", np.array([place], np.int64))
        for key, place in bounds.items()
    ]
    node = ir.node("Slice", [operand.source, *ends], name=f"{name}/Slice")
    node.outputs[0].name = f"{name}/slice"
    graph.insert_before(before, node)
    return node.outputs[0]


def _linear(operand: _Operand, readers: set[ir.Node]) -> Linear | None:
    """The Linear of an operand whose channels nothing but `readers` reads."""
    pending = [operand.source]
    while pending:
        value = pending.pop()
        consumers = value.consumers()
        if value.is_graph_output() or not readers.issuperset(consumers):
            return None
        pending += [v for node in consumers if node in operand.nodes for v in node.outputs]
    return linear_of(operand.source)
