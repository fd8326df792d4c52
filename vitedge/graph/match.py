"""Every attention of anybody's ONNX graph: a softmax, and the two products around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto

from vitedge.graph.structure import Structure

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Dropout")
ELEMENTWISE = ("Mul", "Div", "Add", "Sub", "Where")
_QDQ = ("QuantizeLinear", "DequantizeLinear")
TRANSPARENT = (*MOVES, *ELEMENTWISE, *_QDQ)
"""What may stand between an attention product and its softmax."""


@dataclass(frozen=True)
class SoftmaxPattern:
    """A softmax and the products around it: MatMuls whose right operand is computed."""

    softmax: NodeProto
    before: NodeProto | None
    """The product that the scores come from."""
    scores_quantized: bool
    """Whether there is Q/DQ between that product and the softmax."""
    after: NodeProto | None
    """The product that reads the probabilities, only moved, scaled or through Q/DQ."""
    probabilities: str
    """The operand of `after` that holds them."""


@dataclass(frozen=True)
class AttentionPattern:
    """Softmax and the two products around it, each of two activations."""

    qk: NodeProto
    softmax: NodeProto
    pv: NodeProto
    scores_quantized: bool
    """Whether there is Q/DQ between the first product and the softmax."""


def softmaxes(graph: Structure) -> Iterator[SoftmaxPattern]:
    """Every softmax of `graph`, in its order, quantized or not."""
    for node in graph.nodes:
        if node.op_type == "Softmax":
            yield SoftmaxPattern(
                node, *_scores(graph, node.input[0]), *_reader(graph, node.output[0])
            )


def attentions(graph: Structure) -> Iterator[AttentionPattern]:
    """The attentions of `graph`, in its order, quantized or not."""
    for pattern in softmaxes(graph):
        qk, pv = pattern.before, pattern.after
        if qk and pv and two_activations(graph, qk) and two_activations(graph, pv):
            yield AttentionPattern(qk, pattern.softmax, pv, pattern.scores_quantized)


def _scores(graph: Structure, name: str) -> tuple[NodeProto | None, bool]:
    """The product that `name` comes from, and whether through Q/DQ."""
    pending, seen = [(name, False)], {name}
    while pending:
        name, quantized = pending.pop()
        node = graph.maker(name)
        if node is None:
            continue
        if _is_product(graph, node):
            return node, quantized
        if node.op_type in TRANSPARENT:
            sources = [source for source in node.input if source not in seen]
            seen.update(sources)
            pending += [(source, quantized or node.op_type in _QDQ) for source in sources]
    return None, False


def _reader(graph: Structure, name: str) -> tuple[NodeProto | None, str]:
    """The product that reads `name`, and as which operand."""
    pending, seen = [name], {name}
    while pending:
        name = pending.pop()
        for node in graph.users(name):
            if _is_product(graph, node):
                return node, name
            passes = node.op_type in TRANSPARENT and node.input[0] == name
            if passes and node.output[0] not in seen:
                seen.add(node.output[0])
                pending.append(node.output[0])
    return None, ""


def _is_product(graph: Structure, node: NodeProto) -> bool:
    return node.op_type == "MatMul" and not graph.weight(node.input[1])


def two_activations(graph: Structure, node: NodeProto) -> bool:
    """Whether neither operand of a product is a constant, dequantized or not."""
    return not any(graph.weight(name) for name in node.input)
