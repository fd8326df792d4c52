"""What a graph computes from constants alone is computed once: folded weights can be quantized.

Weight standardisation, BatchNorm, relative position biases, resized position embeddings.
"""

from __future__ import annotations

from typing import TypeVar

import onnx_ir as ir
from onnx import ModelProto
from onnx_ir.convenience import replace_all_uses_with as replace_uses
from onnxscript import optimizer, rewriter

NO_LIMIT = 2**40

ModelT = TypeVar("ModelT", ModelProto, ir.Model)


def constants(model: ModelT) -> ModelT:
    """`model` with constants folded and BatchNorm merged into the convolution before it.

    An `onnx_ir.Model` is changed in place, too.
    """
    folded = optimizer.optimize(model, input_size_limit=NO_LIMIT, output_size_limit=NO_LIMIT)
    return rewriter.rewrite(folded)


def by_shape(graph: ir.Graph) -> None:
    """What `constants` would fold if the weights of `graph` had values, in place: they have none.

    What is computed from them and from constants alone becomes one of them, by its shape.
    """
    weights = {value for value in graph.initializers.values() if value.const_value is None}
    constant = {*graph.initializers.values()}
    for node in list(graph):
        inputs = [value for value in node.inputs if value is not None]
        before = inputs[0].producer() if node.op_type == "BatchNormalization" else None
        if before is not None and _takes_norm(before, inputs[0]):
            replace_uses(node.outputs[0], inputs[0], replace_graph_outputs=True)
            graph.remove(node, safe=True)
        elif constant.issuperset(inputs):
            constant.update(node.outputs)
            if weights.isdisjoint(inputs) or not all(map(_is_free, node.outputs)):
                continue
            for value in node.outputs:
                name = f"{value.name}/constant"
                stored = ir.Value(name=name, shape=value.shape, type=value.type)
                graph.initializers[name] = stored
                replace_uses(value, stored)
                weights.add(stored)
                constant.add(stored)
            graph.remove(node, safe=True)


def _takes_norm(node: ir.Node, output: ir.Value) -> bool:
    """Whether a BatchNorm of its `output` is merged into it."""
    return node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(output.uses()) == 1


def _is_free(value: ir.Value) -> bool:
    """Whether a value may become a constant of its shape."""
    return value.shape is not None and value.shape.is_static() and not value.is_graph_output()
