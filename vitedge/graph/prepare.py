"""The form of attention that TensorRT fuses in INT8, for graphs of any source.

A Linear each for Q, K and V; the scale before Q·Kᵀ; LayerNorm as one operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper

from vitedge.core.errors import InputError
from vitedge.core.numerics import REWRITE_PARITY, relative_error
from vitedge.graph.external import DataFile
from vitedge.graph.norms import Norms
from vitedge.graph.qkv_split import split
from vitedge.graph.run import Runner, shapes


def prepare(fp32: Path, path: Path, images: NDArray[np.uint8]) -> None:
    """Write the ONNX file `fp32` to `path`, beside it, in that form.

    `images` (B, H, W, 3) are run through both; where a Linear's parts cannot be told from them,
    it stays as it is. The external data of `fp32` is shared. Raises InputError when the outputs
    differ by more than REWRITE_PARITY.
    """
    model = onnx.load(fp32, load_external_data=False)
    sizes = shapes(model, fp32, images)
    Norms(model, sizes, fp32.parent).fuse()
    split(model, sizes, fp32.parent, DataFile(path))
    scale_queries(model.graph)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    want, got = (Runner(p)(images)[0] for p in (fp32, path))
    error = relative_error(want, got)
    if not error <= REWRITE_PARITY:
        raise InputError(
            f"putting attention into the form the target fuses changed what the model computes, by "
            f"{error:.1e} relative",
            fix="set `fused_attention = false` in a copy of the target, and report the model",
        )


def scale_queries(graph: GraphProto) -> None:
    """Move a scalar that multiplies or divides Q·Kᵀ onto Q, in place."""
    scalars = {tensor.name for tensor in graph.initializer if np.prod(tensor.dims) == 1}
    stored = {tensor.name for tensor in graph.initializer}
    readers: dict[str, int] = {}
    for name in (name for node in graph.node for name in node.input):
        readers[name] = readers.get(name, 0) + 1
    products = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "MatMul" and not stored & set(node.input)
    }
    moved = [(node, *match) for node in graph.node if (match := _scaled(node, products, scalars))]
    for scaling, product, scalar in moved:
        if readers[product.output[0]] != 1:
            continue
        query = f"{product.name}/query"
        scaled = helper.make_node(
            scaling.op_type, [product.input[0], scalar], [query], f"{scaling.name}/query"
        )
        place = list(graph.node).index(product)
        product.input[0], product.output[0] = query, scaling.output[0]
        graph.node.insert(place, scaled)
        graph.node.remove(scaling)


def _scaled(
    node: NodeProto, products: Mapping[str, NodeProto], scalars: set[str]
) -> tuple[NodeProto, str] | None:
    """The product that `node` multiplies or divides by a scalar, and the scalar."""
    if node.op_type not in ("Mul", "Div"):
        return None
    if node.input[0] in products and node.input[1] in scalars:
        return products[node.input[0]], node.input[1]
    if node.op_type == "Mul" and node.input[1] in products and node.input[0] in scalars:
        return products[node.input[1]], node.input[0]
    return None
