"""What a graph computes from constants alone is computed once: folded weights can be quantized.

Weight standardisation, BatchNorm, relative position biases, resized position embeddings.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer, rewriter

from vitedge.graph import gather
from vitedge.graph.constants import evaluate
from vitedge.graph.external import constant

NO_LIMIT = 2**40


def constants(model: ir.Model) -> None:
    """Fold the constants of `model` and merge BatchNorm into convolutions, in place."""
    _fold(model)
    if _split_constants(model.graph) | bool(gather.SIZES.apply_to_model(model)):
        _fold(model)
    rewriter.rewrite(model)
    rewriter.rewrite(model, gather.ROWS)


def _fold(model: ir.Model) -> None:
    optimizer.optimize_ir(
        model,
        input_size_limit=NO_LIMIT,
        output_size_limit=NO_LIMIT,
        should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None,
    )


def _split_constants(graph: ir.Graph) -> bool:
    """Fold, in place, every Split of a constant, which the optimizer leaves; whether there is one.

    `nn.MultiheadAttention` takes the weights of a learned query's K and V apart so.
    """
    folded = False
    for node in list(graph):
        known = {value: ir.convenience.get_const_tensor(value) for value in node.inputs if value}
        if node.op_type != "Split" or None in known.values():
            continue
        parts = evaluate(node, {value: tensor.numpy() for value, tensor in known.items() if tensor})
        for value, part in zip(node.outputs, parts or [], strict=True):
            stored = constant(graph, f"{value.name}.part", part)
            ir.convenience.replace_all_uses_with(value, stored, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        folded = True
    return folded
