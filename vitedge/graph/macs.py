"""How many multiply-accumulates an operator takes, by the shapes it works on."""

from __future__ import annotations

import math

import onnx_ir as ir

from vitedge.graph.structure import PRODUCTS, sizes


def macs(node: ir.Node) -> int | None:
    """Of one image, where an open or first dimension of the output counts the images.

    None where the shapes are not known; 0 for an operator that multiplies no matrices.
    """
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
