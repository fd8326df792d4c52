"""Every attention of anybody's ONNX graph: a softmax, and the two products around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vitedge.graph.structure import Structure, maker, weight

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Dropout")
ELEMENTWISE = ("Mul", "Div", "Add", "Sub", "Where")
_QDQ = ("QuantizeLinear", "DequantizeLinear")
TRANSPARENT = (*MOVES, *ELEMENTWISE, *_QDQ)
"""What may stand between an attention product and its softmax."""


@dataclass(frozen=True)
class SoftmaxPattern:
    """A softmax and the products around it: MatMuls whose right operand is computed."""

    softmax: ir.Node
    before: ir.Node | None
    """The product that the scores come from."""
    scores_quantized: bool
    """Whether there is Q/DQ between that product and the softmax."""
    after: ir.Node | None
    """The product that reads the probabilities, only moved, scaled or through Q/DQ."""
    probabilities: ir.Value | None
    """The operand of `after` that holds them."""


@dataclass(frozen=True)
class AttentionPattern:
    """Softmax and the two products around it, each of two activations."""

    qk: ir.Node
    softmax: ir.Node
    pv: ir.Node
    scores_quantized: bool
    """Whether there is Q/DQ between the first product and the softmax."""


def softmaxes(graph: Structure) -> Iterator[SoftmaxPattern]:
    """Every softmax of `graph`, in its order, quantized or not."""
    for node in graph.nodes:
        if node.op_type == "Softmax":
            yield SoftmaxPattern(node, *_scores(node.inputs[0]), *_reader(node.outputs[0]))


def attentions(graph: Structure) -> Iterator[AttentionPattern]:
    """The attentions of `graph`, in its order, quantized or not."""
    for pattern in softmaxes(graph):
        qk, pv = pattern.before, pattern.after
        if qk and pv and two_activations(qk) and two_activations(pv):
            yield AttentionPattern(qk, pattern.softmax, pv, pattern.scores_quantized)


def _scores(scores: ir.Value | None) -> tuple[ir.Node | None, bool]:
    """The product that `scores` come from, and whether through Q/DQ."""
    pending, seen = [(scores, False)], {scores}
    while pending:
        value, quantized = pending.pop()
        node = maker(value)
        if node is None:
            continue
        if _is_product(node):
            return node, quantized
        if node.op_type in TRANSPARENT:
            sources = [source for source in node.inputs if source not in seen]
            seen.update(sources)
            pending += [(source, quantized or node.op_type in _QDQ) for source in sources]
    return None, False


def _reader(probabilities: ir.Value) -> tuple[ir.Node | None, ir.Value | None]:
    """The product that reads the `probabilities`, and as which operand."""
    pending, seen = [probabilities], {probabilities}
    while pending:
        value = pending.pop()
        for node in value.consumers():
            if _is_product(node):
                return node, value
            passes = node.op_type in TRANSPARENT and node.inputs[0] is value
            if passes and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                pending.append(node.outputs[0])
    return None, None


def _is_product(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and weight(node.inputs[1]) is None


def two_activations(node: ir.Node) -> bool:
    """Whether neither operand of a product is a constant, dequantized or not."""
    return all(weight(value) is None for value in node.inputs)
