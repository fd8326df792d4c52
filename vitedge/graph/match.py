"""Every attention of anybody's ONNX graph: a softmax, and the two products around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto

from vitedge.graph.structure import Structure

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Dropout")
ELEMENTWISE = ("Mul", "Div", "Add", "Sub", "Where")
_QDQ = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class AttentionPattern:
    """Softmax and the two products around it."""

    qk: NodeProto
    softmax: NodeProto
    pv: NodeProto
    scores_quantized: bool
    """Whether there is Q/DQ between the first product and the softmax."""


def attentions(graph: Structure) -> Iterator[AttentionPattern]:
    """The attentions of `graph`, in its order, quantized or not."""
    for node in graph.nodes:
        if node.op_type != "Softmax":
            continue
        before = _scores(graph, node.input[0])
        after = _reader(graph, node.output[0])
        if before is not None and after is not None:
            yield AttentionPattern(before[0], node, after, before[1])


def _scores(graph: Structure, name: str) -> tuple[NodeProto, bool] | None:
    """The product of two activations that `name` comes from, and whether through Q/DQ."""
    pending, seen = [(name, False)], {name}
    while pending:
        name, quantized = pending.pop()
        node = graph.maker(name)
        if node is None:
            continue
        if node.op_type == "MatMul" and two_activations(graph, node):
            return node, quantized
        if node.op_type in (*MOVES, *ELEMENTWISE, *_QDQ):
            sources = [source for source in node.input if source not in seen]
            seen.update(sources)
            pending += [(source, quantized or node.op_type in _QDQ) for source in sources]
    return None


def _reader(graph: Structure, name: str) -> NodeProto | None:
    """The product of two activations that reads `name`, if only moved or through Q/DQ."""
    pending, seen = [name], {name}
    while pending:
        for node in graph.users(pending.pop()):
            if node.op_type == "MatMul" and two_activations(graph, node):
                return node
            if node.op_type in (*MOVES, *_QDQ) and node.output[0] not in seen:
                seen.add(node.output[0])
                pending.append(node.output[0])
    return None


def two_activations(graph: Structure, node: NodeProto) -> bool:
    """Whether neither operand of a product is a constant, dequantized or not."""
    return not any(graph.weight(name) for name in node.input)
