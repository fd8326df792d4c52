"""LayerNorm and RMSNorm that an exporter spelled out: their squares leave float16 at |x| = 256.

What is a LayerNorm exactly becomes the operator, which adds up in float32; the rest is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult, OrValue, Pattern

from vitedge.graph.constants import is_constant, scalar, shape, values
from vitedge.graph.external import constant
from vitedge.graph.run import Shapes

_ROOTS = ("Sqrt", "Reciprocal", "Pow")
_SCALINGS = ("Add", "Max", "Clip", "Mul", "Div", "Cast", "Identity")
"""What may stand between the mean of squares and its root, with a constant: ε, 1/N, a bound."""


def _layer_norm(normalized: Callable[[Any, Any, Any], Any]) -> Pattern:
    """(x − mean(x)) / √(mean((x − mean(x))²) + ε), divided as `normalized` says."""

    def pattern(op: Any, x: Any, epsilon: Any) -> Any:
        mean = op.ReduceMean(x, _allow_other_inputs=True, _outputs=["mean"])
        centred = op.Sub(x, mean)
        square = OrValue([op.Mul(centred, centred), op.Pow(centred, 2.0)])
        variance = op.ReduceMean(square, _allow_other_inputs=True, _outputs=["variance"])
        safe = OrValue([op.Add(variance, epsilon), op.Add(epsilon, variance)])
        return normalized(op, centred, op.Sqrt(safe))

    return Pattern(pattern)


_LAYER_NORMS = (
    _layer_norm(lambda op, centred, root: op.Div(centred, root)),
    _layer_norm(lambda op, centred, root: op.Mul(centred, op.Reciprocal(root))),
    _layer_norm(lambda op, centred, root: op.Mul(op.Reciprocal(root), centred)),
)


def fuse(model: ir.Model, sizes: Shapes) -> int:
    """Replace, in place, every exact LayerNorm over the last axis; returns how many.

    onnxscript's own rule asks for a γ, and for axes in one of their forms.
    """
    fused = 0
    for node in model.graph:
        for pattern in _LAYER_NORMS:
            match = pattern.match(model, model.graph, node)
            if match and _over_last_axis(match, sizes) and scalar(match.bindings["epsilon"]):
                _replace(model.graph, node, match, sizes)
                fused += 1
                break
    return fused


def _over_last_axis(match: MatchResult, sizes: Shapes) -> bool:
    """Whether both means are over the last axis, which they keep."""
    for name in ("mean", "variance"):
        mean = match.bindings[name]
        node = mean.producer()
        axes = list(node.attributes.get_ints("axes", ()))
        if len(node.inputs) > 1 and is_constant(node.inputs[1]):
            axes = values(node.inputs[1]).tolist()
        rank = len(sizes[mean.name])
        if not node.attributes.get_int("keepdims", 1) or [a % rank for a in axes] != [rank - 1]:
            return False
    return True


def _replace(graph: ir.Graph, last: ir.Node, match: MatchResult, sizes: Shapes) -> None:
    """One LayerNormalization for what matched up to `last`, and for the γ and β that follow."""
    pieces, x = list(match.nodes), match.bindings["x"]
    width = sizes[x.name][-1]
    parameters = [np.ones(width, np.float32), np.zeros(width, np.float32)]
    for index, op in enumerate(("Mul", "Add")):
        readers = last.outputs[0].consumers()
        if len(readers) != 1 or readers[0].op_type != op or last.outputs[0].is_graph_output():
            continue
        vectors = [value for value in readers[0].inputs if is_constant(value)]
        dims = shape(vectors[0]) if len(vectors) == 1 else ()
        if dims[-1:] == (width,) and np.prod(dims) == width:
            parameters[index] = values(vectors[0]).reshape(-1)
            last = readers[0]
            pieces.append(last)
    output = last.outputs[0]
    gamma = constant(graph, f"{output.name}.gamma", parameters[0])
    beta = constant(graph, f"{output.name}.beta", parameters[1])
    settings = {"axis": -1, "epsilon": scalar(match.bindings["epsilon"]), "stash_type": 1}
    name = f"{last.name}/LayerNormalization"
    norm = ir.node("LayerNormalization", [x, gamma, beta], settings, name=name)
    ir.convenience.replace_nodes_and_values(graph, last, pieces, [norm], [output], norm.outputs)


def spelled_out(graph: ir.Graph) -> set[str]:
    """The nodes of the norms that are no LayerNormalization."""
    return {
        piece.name or ""
        for square in graph
        if _is_square(square)
        for mean in square.outputs[0].consumers()
        if mean.op_type in ("ReduceMean", "ReduceSum", "GlobalAveragePool")
        for piece in _pieces(square, mean)
    }


def _pieces(square: ir.Node, mean: ir.Node) -> Iterator[ir.Node]:
    """From what is squared to the division by the root; nothing where there is no root."""
    pieces, node = [square, mean], mean
    while len(readers := node.outputs[0].consumers()) == 1:
        node = readers[0]
        pieces.append(node)
        if node.op_type not in (*_ROOTS, *_SCALINGS) or not _with_constants(node):
            break
    if not any(piece.op_type in _ROOTS for piece in pieces[2:]):
        return
    yield from pieces
    centred = square.inputs[0].producer() if square.inputs[0] else None
    if centred is not None and centred.op_type == "Sub":
        yield centred
        mean_of = centred.inputs[1].producer() if centred.inputs[1] else None
        if mean_of is not None and mean_of.op_type == "ReduceMean":
            yield mean_of


def _with_constants(node: ir.Node) -> bool:
    return len([value for value in node.inputs if value and not is_constant(value)]) == 1


def _is_square(node: ir.Node) -> bool:
    if node.op_type == "Mul":
        return node.inputs[0] is node.inputs[1]
    return node.op_type == "Pow" and scalar(node.inputs[1]) == 2.0
