"""What an INT8 kernel reads and writes: where it pays to make INT8 of that, and which outputs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

from onnx import GraphProto, NodeProto

Readers = dict[str, list[NodeProto]]


def bias_of(node: NodeProto) -> str:
    """The bias of a Conv or Gemm; empty where it has none."""
    return node.input[2] if len(node.input) > 2 else ""


def groups_of(conv: NodeProto) -> int:
    """Into how many groups its channels are divided."""
    return next((a.i for a in conv.attribute if a.name == "group"), 1)


def output_channel_axis(node: NodeProto, ndim: int) -> int:
    """The axis of the output channels in the weight, of `ndim` axes, of a layer."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return 0 if node.op_type == "Conv" else 1
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else ndim - 1


def macs_per_value(node: NodeProto, weight: Sequence[int]) -> float:
    """MACs of a Conv for each value of its input and its output; `weight` are its weight's sizes.

    A value that becomes INT8, or float again, costs much the same whatever is computed of it.
    """
    strides = next((a.ints for a in node.attribute if a.name == "strides"), ())
    read = weight[1] * groups_of(node) * math.prod(strides)
    return math.prod(weight) / (read + weight[0])


def readers_of(graph: GraphProto) -> Readers:
    """The nodes that read each tensor; the graph's outputs have a reader without a name."""
    readers: Readers = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            readers[name].append(node)
    for output in graph.output:
        readers[output.name].append(NodeProto())
    return readers


def written(node: NodeProto, readers: Readers) -> str:
    """The tensor that an INT8 kernel with a quantized output writes; empty where it cannot.

    That is what a Relu gives, where one alone reads `node`: the least integer takes its place.
    """
    name = node.output[0]
    users = readers[name]
    if [user.op_type for user in users] == ["Relu"]:
        name = users[0].output[0]
        users = readers[name]
    return name if users and all(user.name for user in users) else ""


def quantized_outputs(
    graph: GraphProto, quantized: Collection[str], operators: Collection[str]
) -> dict[str, str]:
    """What each of the nodes `quantized` writes in INT8, of those `operators` that do."""
    readers = readers_of(graph)
    nodes = [n for n in graph.node if n.op_type in operators and n.name in quantized]
    return {node.name: written(node, readers) for node in nodes}
