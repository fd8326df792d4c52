"""What a graph computes from constants alone is computed once: folded weights can be quantized.

Weight standardisation, BatchNorm, relative position biases, resized position embeddings.
"""

from __future__ import annotations

from typing import TypeVar

import onnx_ir as ir
from onnx import ModelProto
from onnxscript import optimizer, rewriter

from vitedge.graph import gather
from vitedge.graph.constants import evaluate
from vitedge.graph.external import constant

NO_LIMIT = 2**40

ModelT = TypeVar("ModelT", ModelProto, ir.Model)


def constants(model: ModelT) -> ModelT:
    """`model` with constants folded and BatchNorm merged into the convolution before it.

    An `onnx_ir.Model` is changed in place, too.
    """
    if isinstance(model, ModelProto):
        return ir.to_proto(constants(ir.from_proto(model)))
    folded = _folded(model)
    if _split_constants(folded.graph) | bool(gather.SIZES.apply_to_model(folded)):
        folded = _folded(folded)
    return rewriter.rewrite(rewriter.rewrite(folded), gather.ROWS)


def _folded(model: ir.Model) -> ir.Model:
    return optimizer.optimize(model, input_size_limit=NO_LIMIT, output_size_limit=NO_LIMIT)


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
