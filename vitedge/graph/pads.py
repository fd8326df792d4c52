"""Zeros padded before a MaxPool: ONNX Runtime 1.31 makes them the pool's own padding, of -inf."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitedge.graph.external import constant

AXES_OPSET = 18


def name_axes(graph: ir.Graph) -> None:
    """Name the axes of every Pad that a MaxPool reads, in place: such a one stays.

    Not after a Relu, where the maximum is the same.
    """
    for node in list(graph):
        if node.op_type != "Pad" or len(node.inputs) > 3:
            continue
        source, widths = node.inputs[:2]
        before = source.producer() if source is not None else None
        pooled = any(reader.op_type == "MaxPool" for reader in node.outputs[0].consumers())
        sizes = ir.convenience.get_const_tensor(widths) if widths is not None else None
        if sizes is None or not pooled or (before is not None and before.op_type == "Relu"):
            continue
        if graph.opset_imports[""] >= AXES_OPSET:
            axes = np.arange(sizes.size // 2, dtype=np.int64)
            node.resize_inputs(4)
            node.replace_input_with(3, constant(graph, f"{node.outputs[0].name}.axes", axes))
