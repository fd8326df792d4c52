"""Every attention of anybody's ONNX graph: a softmax, and the two products around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vitedge.graph.constants import shape
from vitedge.graph.structure import Structure, maker, weight

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Dropout")
ELEMENTWISE = ("Mul", "Div", "Add", "Sub", "Where")
_QDQ = ("QuantizeLinear", "DequantizeLinear")
TRANSPARENT = (*MOVES, *ELEMENTWISE, *_QDQ)
"""What may stand between an attention product and its softmax."""


@dataclass(frozen=True)
class SoftmaxPattern:
    """A softmax, the products around it, and the Linears that mix heads in between.

    Learned queries, keys and values are constants: then one operand of a product is.
    """

    softmax: ir.Node
    before: ir.Node | None
    """The product that the scores come from."""
    scores_quantized: bool
    """Whether there is Q/DQ between that product and the softmax."""
    after: ir.Node | None
    """The product that reads the probabilities, only moved, scaled, mixed or through Q/DQ."""
    probabilities: ir.Value | None
    """The operand of `after` that holds them."""
    mixes: tuple[ir.Node, ...]
    """Linears over heads, before the softmax and after it: talking-heads attention."""


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
            axis = _softmax_axis(node)
            before, quantized, mixed = _scores(node.inputs[0], axis)
            after, probabilities, mixes = _reader(node.outputs[0], axis)
            yield SoftmaxPattern(
                node, before, quantized, after, probabilities, (*mixed, *(mixes if after else ()))
            )


def attentions(graph: Structure) -> Iterator[AttentionPattern]:
    """The attentions of `graph`, in its order, quantized or not."""
    for pattern in softmaxes(graph):
        qk, pv = pattern.before, pattern.after
        if qk and pv and not pattern.mixes and two_activations(qk) and two_activations(pv):
            yield AttentionPattern(qk, pattern.softmax, pv, pattern.scores_quantized)


def _softmax_axis(softmax: ir.Node) -> int:
    """The axis of a softmax counted from the end, which is negative; the last if unknown."""
    axis = softmax.attributes.get_int("axis", -1)
    dims = softmax.inputs[0].shape if softmax.inputs[0] is not None else None
    return axis if axis < 0 else axis - len(dims) if dims is not None else -1


def _scores(scores: ir.Value | None, axis: int) -> tuple[ir.Node | None, bool, tuple[ir.Node, ...]]:
    """The product that `scores` come from, whether through Q/DQ, and what mixes heads on the way.

    `axis`, of the softmax, is counted from the end.
    """
    pending: list[tuple[ir.Value | None, int, bool, tuple[ir.Node, ...]]]
    pending, seen = [(scores, axis, False, ())], {scores}
    while pending:
        value, axis, quantized, mixes = pending.pop()
        node = maker(value)
        if node is None:
            continue
        if mixes_heads(node, axis):
            sources, mixes = [node.inputs[0]], (*mixes, node)
        elif is_product(node):
            return node, quantized, mixes
        elif node.op_type in TRANSPARENT:
            sources, axis = list(node.inputs), _axis_before(node, axis)
        else:
            continue
        new = [source for source in sources if source not in seen]
        seen.update(new)
        quantized = quantized or node.op_type in _QDQ
        pending += [(source, axis, quantized, mixes) for source in new]
    return None, False, ()


def _reader(
    probabilities: ir.Value, axis: int
) -> tuple[ir.Node | None, ir.Value | None, tuple[ir.Node, ...]]:
    """The product that reads the `probabilities`, as which operand, and what mixes heads before.

    A constant that it multiplies them with along `axis`, the softmax's, is a learned V.
    """
    pending: list[tuple[ir.Value, int, tuple[ir.Node, ...]]] = [(probabilities, axis, ())]
    seen = {probabilities}
    while pending:
        value, axis, mixes = pending.pop()
        for node in value.consumers():
            reads_first, after, through = node.inputs[0] is value, axis, mixes
            if reads_first and mixes_heads(node, axis):
                through = (*mixes, node)
            elif is_product(node) or (node.op_type == "MatMul" and reads_first and axis == -1):
                return node, value, mixes
            elif node.op_type in TRANSPARENT and reads_first:
                after = _axis_after(node, axis)
            else:
                continue
            if node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                pending.append((node.outputs[0], after, through))
    return None, None, ()


def mixes_heads(node: ir.Node, axis: int) -> bool:
    """Whether `node` is a Linear over heads, that is not over the softmax's `axis`.

    As CaiT has it, a MatMul with heads moved last, or a 1×1 Conv as EfficientFormer V2.
    """
    if node.op_type not in ("MatMul", "Conv"):
        return False
    constant = weight(node.inputs[1])
    dims = shape(constant) if constant is not None else ()
    if node.op_type == "Conv":
        square = len(dims) > 2 and dims[0] == dims[1] and set(dims[2:]) == {1}
        return square and node.attributes.get_int("group", 1) == 1 and axis > 1 - len(dims)
    return len(dims) == 2 and dims[0] == dims[1] and axis != -1


def _axis_before(node: ir.Node, axis: int) -> int:
    """Where the axis of `node`'s output comes from in its input, both counted from the end."""
    perm = node.attributes.get_ints("perm") if node.op_type == "Transpose" else None
    return perm[axis] - len(perm) if perm else axis


def _axis_after(node: ir.Node, axis: int) -> int:
    """Where the axis of `node`'s input goes in its output, both counted from the end."""
    perm = node.attributes.get_ints("perm") if node.op_type == "Transpose" else None
    return list(perm).index(axis + len(perm)) - len(perm) if perm else axis


def is_product(node: ir.Node) -> bool:
    """Whether `node` multiplies two activations, or is given a stack of matrices as one of them.

    A Linear's weight is one matrix.
    """
    if node.op_type != "MatMul":
        return False
    constant = weight(node.inputs[1])
    return constant is None or len(shape(constant)) > 2


def two_activations(node: ir.Node) -> bool:
    """Whether neither operand of a product is a constant, dequantized or not."""
    return all(weight(value) is None for value in node.inputs)
