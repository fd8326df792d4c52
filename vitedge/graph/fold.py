"""What a graph computes from constants alone is computed once: folded weights can be quantized.

Weight standardisation, BatchNorm, relative position biases, resized position embeddings.
"""

from __future__ import annotations

from typing import TypeVar

import onnx_ir
from onnx import ModelProto
from onnxscript import optimizer, rewriter

from vitedge.graph import gather

NO_LIMIT = 2**40

ModelT = TypeVar("ModelT", ModelProto, onnx_ir.Model)


def constants(model: ModelT) -> ModelT:
    """`model` with constants folded and BatchNorm merged into the convolution before it.

    An `onnx_ir.Model` is changed in place, too.
    """
    folded = optimizer.optimize(model, input_size_limit=NO_LIMIT, output_size_limit=NO_LIMIT)
    return rewriter.rewrite(rewriter.rewrite(folded), gather.RULES)
