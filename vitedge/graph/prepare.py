"""The form of attention that TensorRT fuses in INT8, for graphs of any source.

A Linear each for Q, K and V; the scale before Q·Kᵀ; LayerNorm as one operator.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.numerics import REWRITE_PARITY, relative_error
from vitedge.graph.constants import is_constant, scalar
from vitedge.graph.external import load, write
from vitedge.graph.norms import fuse
from vitedge.graph.qkv_split import split
from vitedge.graph.run import Runner, shapes


def prepare(fp32: Path, path: Path, images: NDArray[np.uint8]) -> None:
    """Write the ONNX file `fp32` to `path`, beside it, in that form.

    `images` (B, H, W, 3) are run through both; where a Linear's parts cannot be told from them,
    it stays as it is. The external data of `fp32` is shared. Raises InputError when the outputs
    differ by more than REWRITE_PARITY.
    """
    model, sizes = load(fp32), shapes(fp32, images)
    fuse(model, sizes)
    split(model, sizes)
    scale_queries(model.graph)
    write(model, path)
    onnx.shape_inference.infer_shapes_path(path, path)
    runs = (Runner(p)(images) for p in (fp32, path))
    error = max(relative_error(want, got) for want, got in zip(*runs, strict=True))
    if not error <= REWRITE_PARITY:
        raise InputError(
            f"putting attention into the form the target fuses changed what the model computes, by "
            f"{error:.1e} relative",
            fix="set `fused_attention = false` in a copy of the target, and report the model",
        )


def scale_queries(graph: ir.Graph) -> None:
    """Move a scalar that multiplies or divides Q·Kᵀ onto Q, in place."""
    for scaling in graph:
        product, factor = _scaled(scaling)
        if (
            product is None
            or len(product.outputs[0].uses()) != 1
            or product.outputs[0].is_graph_output()
        ):
            continue
        query = ir.node(scaling.op_type, [product.inputs[0], factor], name=f"{scaling.name}/query")
        query.outputs[0].name = f"{product.name}/query"
        product.replace_input_with(0, query.outputs[0])
        graph.insert_before(product, query)
        ir.convenience.replace_all_uses_with(
            scaling.outputs[0], product.outputs[0], replace_graph_outputs=True
        )
        graph.remove(scaling, safe=True)
        product.outputs[0].name = scaling.outputs[0].name


def _scaled(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The product of two activations that `node` scales by a scalar, and the scalar."""
    pairs = {"Mul": (node.inputs, node.inputs[::-1]), "Div": (node.inputs,)}
    for scaled, factor in pairs.get(node.op_type, ()):
        product = scaled.producer() if scaled is not None else None
        if product is None or product.op_type != "MatMul" or scalar(factor) is None:
            continue
        if not any(map(is_constant, product.inputs)):
            return product, factor
    return None, None
