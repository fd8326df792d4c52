"""What a graph computes from constants alone is computed once: folded weights can be quantized.

Weight standardisation, BatchNorm, relative position biases, resized position embeddings.
"""

from __future__ import annotations

from typing import TypeVar

import onnx_ir as ir
from onnx import ModelProto
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

    A value computed from constants alone becomes one, by its shape.
    """
    for node in list(graph):
        inputs = [value for value in node.inputs if value is not None]
        constant = bool(inputs) and all(map(_is_constant, inputs))
        before = inputs[0].producer() if node.op_type == "BatchNormalization" else None
        merged = before is not None and before.op_type in ("Conv", "ConvTranspose", "Gemm")
        if merged and len(inputs[0].uses()) == 1:
            ir.convenience.replace_all_uses_with(
                node.outputs[0], inputs[0], replace_graph_outputs=True
            )
        elif constant and all(_is_free(value) for value in node.outputs):
            for value in node.outputs:
                stored = ir.Value(name=f"{value.name}/constant", shape=value.shape, type=value.type)
                graph.initializers[f"{value.name}/constant"] = stored
                ir.convenience.replace_all_uses_with(value, stored)
        else:
            continue
        graph.remove(node, safe=True)


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() or value.const_value is not None


def _is_free(value: ir.Value) -> bool:
    """Whether a value may become a constant of its shape."""
    return value.shape is not None and value.shape.is_static() and not value.is_graph_output()
