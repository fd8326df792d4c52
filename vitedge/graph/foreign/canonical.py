"""The one form in which somebody's graph goes on: its opset, its constants, its operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import (
    IdentityEliminationPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
)

from vitedge.graph import fold
from vitedge.graph.external import load, write
from vitedge.graph.foreign import fusion, opset
from vitedge.graph.run import Shapes, shapes
from vitedge.graph.structure import sizes as dims_of


def canonical(source: Path, path: Path, to_opset: int, images: NDArray[Any], name: str) -> None:
    """Write the ONNX file `source`, called `name`, to `path`, beside it, in opset `to_opset`.

    `images` are what it takes, and tell the shapes. Functions are inlined, constants folded, and
    spelled-out norms, GELUs and softmaxes one operator each. The external data of `source` is
    shared. Raises InputError, naming the operator, where it has no form in that opset.
    """
    model = load(source)
    InlinePass()(model)
    RemoveUnusedNodesPass()(model)  # none of them stands in the way
    name_apart(model.graph)
    sizes = _shapes(model, path.with_name("inlined.onnx"), images)
    opset.convert(model, to_opset, sizes, name)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    IdentityEliminationPass()(model)
    fusion.fuse(model, sizes)  # before folding, which takes an ε of 1e-12 for none
    fold.constants(model)
    name_apart(model.graph)
    folded = path.with_name("folded.onnx")
    sizes = _shapes(model, folded, images)
    fusion.fuse(model, sizes)
    write(model, path)
    onnx.shape_inference.infer_shapes_path(path, path)
    if not dims_of(model.graph.inputs[0])[0]:  # an open batch
        more = shapes(folded, np.concatenate([images, images[:1]]))
        sizes = {name: _common(dims, more[name]) for name, dims in sizes.items()}
    _describe(path, sizes)
    for value in model.graph.initializers.values():
        value.const_value = None  # onnxscript's rules remember the graph: let go of its files


def _common(dims: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes that are the same for another batch; 0 for those that are not."""
    return tuple(a if a == b else 0 for a, b in zip(dims, others, strict=True))


def _describe(path: Path, sizes: Shapes) -> None:
    """State what was measured: inference does not see through shapes that are computed."""
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.value_info:
        kind = value.type.tensor_type
        if value.name in sizes and kind.elem_type:
            kind.shape.Clear()
            for size in sizes[value.name]:
                kind.shape.dim.add(**({"dim_value": size} if size else {}))
    onnx.save(model, path)


def _shapes(model: ir.Model, path: Path, images: NDArray[Any]) -> Shapes:
    """The shapes of the tensors of `model`; its new constants stay in the data of `path`."""
    write(model, path)
    return shapes(path, images)


def name_apart(graph: ir.Graph) -> None:
    """Give every node a name of its own, in subgraphs too, where an exporter has not."""
    names: set[str] = set()
    for index, node in enumerate(graph.all_nodes()):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{index}"
        names.add(node.name)
