"""What a graph computes from constants alone is computed once: folded weights can be quantized.

Weight standardisation, BatchNorm, relative position biases, resized position embeddings.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer, rewriter

NO_LIMIT = 2**40


def constants(model: ir.Model) -> None:
    """Fold the constants of `model` and merge BatchNorm into convolutions, in place."""
    optimizer.optimize_ir(
        model,
        input_size_limit=NO_LIMIT,
        output_size_limit=NO_LIMIT,
        should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None,
    )
    rewriter.rewrite(model)
