"""How many multiply-accumulates an operator takes, by the shapes it works on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from vitedge.graph.structure import FLOAT_PRODUCTS, PRODUCTS, sizes


def macs(node: ir.Node) -> int | None:
    """Of one image where the first dimension of the output is open, of the whole batch otherwise.

    None where the shapes are not known; 0 for an operator that multiplies no matrices.
    """
    if node.op_type in FLOAT_PRODUCTS:
        return _float_macs(node)
    if node.op_type not in PRODUCTS:
        return 0
    left, right, output = (sizes(v) for v in (*node.inputs[:2], node.outputs[0]))
    if not output or 0 in output[1:]:
        return None
    if node.op_type == "Conv":
        depth = math.prod(right[1:])
    elif node.op_type == "Gemm":
        transposed = node.attributes.get_int("transA", 0)
        depth = left[0 if transposed else -1] if left else 0
    else:
        depth = left[-1] if left else 0
    return math.prod(output[1:] if output[0] == 0 else output) * depth or None


def _float_macs(node: ir.Node) -> int | None:
    """Of an operator that no target runs in INT8."""
    left, right, output = (sizes(v) for v in (*node.inputs[:2], node.outputs[0]))
    if node.op_type == "Einsum":
        equation = node.attributes.get_string("equation", "").replace(" ", "")
        operands = [sizes(value) for value in node.inputs]
        if not output or 0 in output[1:] or not all(operands):
            return None
        depth = math.prod(operands[index][axis] for index, axis in contracted(equation))
        return math.prod(output[1:] if output[0] == 0 else output) * depth or None
    if not left or not right:
        return None
    if node.op_type == "ConvTranspose":  # each input value meets each weight of its channel
        return math.prod(left if left[0] else left[1:]) * math.prod(right[1:]) or None
    recurrent = sizes(node.inputs[2])  # every value of W and R, for each step of a sequence
    steps = (left[0] or 1) * (left[1] or 1)
    return steps * (math.prod(right) + math.prod(recurrent)) or None


def contracted(equation: str) -> Iterator[tuple[int, int]]:
    """Every index that an Einsum sums over, as an input that has it and its axis there."""
    terms, arrow, output = equation.partition("->")
    inputs = terms.split(",")
    letters = [letter for letter in terms if letter.isalpha()]
    kept = output if arrow else [letter for letter in letters if letters.count(letter) == 1]
    for letter in dict.fromkeys(letters):
        if letter not in kept:
            index = next(i for i, term in enumerate(inputs) if letter in term)
            before, dots, after = inputs[index].partition("...")
            last = bool(dots) and letter in after  # counted from the end: what … is, is not known
            yield index, after.index(letter) - len(after) if last else before.index(letter)
