"""A Linear whose output is taken apart (Q, K and V at once) becomes one Linear a part.

TensorRT merges them again, in INT8; a Linear that it has to slice itself it computes in float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.graph.channel_ids import Ids
from vitedge.graph.constants import evaluate, is_vector, is_weight, shape, values
from vitedge.graph.external import constant
from vitedge.graph.run import Shapes

_MOVES = ("Reshape", "Transpose", "Split", "Slice", "Gather", "Squeeze", "Unsqueeze", "Identity")


@dataclass(frozen=True)
class _Linear:
    """A MatMul with constant weights, the Add of its bias if there is one, and what is made of it.

    Every tensor in `parts` holds some of its output channels, moved, and nothing else.
    """

    nodes: tuple[ir.Node, ...]
    """MatMul, Add, and every operator between and `parts`."""
    bias: NDArray[np.float32] | None
    """(channels,)."""
    parts: Mapping[ir.Value, Ids]
    """Flat positions in the Linear's output, shaped as the tensor."""


@dataclass(frozen=True)
class _Layout:
    """How a part lies: its tensor is the transpose by `perm` of (…, *factors)."""

    channels: NDArray[np.int64]
    """Of the Linear's output, ascending."""
    factors: tuple[int, ...]
    """What its channels are reshaped to, e.g. (heads, head size)."""
    perm: tuple[int, ...]


def split(model: ir.Model, sizes: Shapes) -> int:
    """Split, in place, every such Linear of `model`; returns how many.

    `sizes` are the shapes of its tensors on some images.
    """
    count = 0
    for node in list(model.graph):
        if node.op_type != "MatMul" or not is_weight(node.inputs[1], 2):
            continue
        linear = _follow(node, sizes)
        if linear is None or len(linear.parts) < 2:
            continue
        dims = sizes[node.outputs[0].name]
        layouts = [_layout(ids, dims) for ids in linear.parts.values()]
        known = [layout for layout in layouts if layout is not None]
        if len(known) == len(layouts):
            _rebuild(model.graph, linear, known)
            count += 1
    return count


def _follow(node: ir.Node, sizes: Shapes) -> _Linear | None:
    """The Linear of a MatMul with weights of its own; None where it is read whole, too."""
    whole, used, bias = node.outputs[0], [node], None
    readers = whole.consumers()
    if len(readers) == 1 and readers[0].op_type == "Add" and readers[0].graph is node.graph:
        biases = [value for value in readers[0].inputs if is_vector(value)]
        if len(biases) != 1 or shape(biases[0])[-1] != shape(node.inputs[1])[1]:
            return None
        bias, whole = values(biases[0]).reshape(-1), readers[0].outputs[0]
        used.append(readers[0])
    dims = sizes[whole.name]
    pending = {whole: np.arange(np.prod(dims), dtype=np.int64).reshape(dims)}
    parts: dict[ir.Value, Ids] = {}
    while pending:
        value, ids = pending.popitem()
        readers = value.consumers()
        outputs = [_move(reader, value, ids, sizes) for reader in readers]
        if value.is_graph_output() or not readers or not all(outputs):
            if any(outputs):
                return None  # read whole, and taken apart
            parts[value] = ids
            continue
        used += readers
        for parts_of_value in outputs:
            pending.update(parts_of_value)
    return _Linear(tuple(used), bias, parts)


def _move(node: ir.Node, value: ir.Value, ids: Ids, sizes: Shapes) -> dict[ir.Value, Ids]:
    """The ids of the outputs of `node`, if it only moves `value`; else none."""
    if node.op_type not in _MOVES or node.inputs[0] is not value or node.graph is not value.graph:
        return {}
    if node.op_type == "Reshape":
        return {node.outputs[0]: ids.reshape(sizes[node.outputs[0].name])}
    return dict(zip(node.outputs, evaluate(node, {value: ids}) or (), strict=False))


def _layout(ids: Ids, dims: tuple[int, ...]) -> _Layout | None:
    """How to make a part with these `ids` of a Linear's output of `dims`; None where it differs."""
    *lead, width = dims
    *places, channel = np.unravel_index(ids, dims)
    free = [axis for axis in range(ids.ndim) if ids.shape[axis] == 1]
    axes = []
    for size, place in zip(lead, places, strict=True):
        varying = _varying(place) if size > 1 else free[:1]
        if len(varying) != 1 or ids.shape[varying[0]] != size:
            return None
        axes += varying
        free = [axis for axis in free if axis not in varying]
    rest = [axis for axis in range(ids.ndim) if axis not in axes]
    rest.sort(key=lambda axis: -_stride(channel, axis))
    factors = tuple(ids.shape[axis] for axis in rest)
    ordered = [*axes, *rest]
    moved = np.transpose(ids, ordered)
    channels = np.unique(channel)
    expected = np.arange(np.prod(dims), dtype=np.int64).reshape(dims)[..., channels]
    if len(channels) == width or not np.array_equal(moved.reshape(-1), expected.reshape(-1)):
        return None
    return _Layout(channels, factors, tuple(int(axis) for axis in np.argsort(ordered)))


def _varying(values: Ids) -> list[int]:
    """The axes along which `values` change."""
    return [axis for axis in range(values.ndim) if (values != values.take([0], axis)).any()]


def _stride(values: Ids, axis: int) -> int:
    return int(np.ptp(values.take([0, min(1, values.shape[axis] - 1)], axis), axis).max())


def _rebuild(graph: ir.Graph, linear: _Linear, layouts: Sequence[_Layout]) -> None:
    """A Linear a part, and what brings its output into the part's shape."""
    matmul = linear.nodes[0]
    weight = values(matmul.inputs[1])
    nodes: list[ir.Node] = []
    outputs: list[ir.Value] = []
    for index, layout in enumerate(layouts):
        base = f"{matmul.name}/{index}"
        lead = len(layout.perm) - len(layout.factors)
        steps: list[tuple[str, str, NDArray[Any]]]
        steps = [("MatMul", "weight", weight[:, layout.channels])]
        if linear.bias is not None:
            steps.append(("Add", "bias", linear.bias[layout.channels]))
        if len(layout.factors) > 1:
            steps.append(("Reshape", "shape", np.array([0] * lead + list(layout.factors))))
        value = matmul.inputs[0]
        for op, name, array in steps:
            inputs = [value, constant(graph, f"{base}/{name}", array)]
            nodes.append(ir.node(op, inputs, name=f"{base}/{op}"))
            value = nodes[-1].outputs[0]
            value.name = f"{base}/{op}"
        if layout.perm != tuple(range(len(layout.perm))):
            nodes.append(
                ir.node("Transpose", [value], {"perm": layout.perm}, name=f"{base}/Transpose")
            )
        outputs.append(nodes[-1].outputs[0])
    ir.convenience.replace_nodes_and_values(
        graph, matmul, linear.nodes, nodes, list(linear.parts), outputs
    )
