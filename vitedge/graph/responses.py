"""What a few operators make of one tensor, told by what they give for samples of it.

Exporters spell GELU, LayerNorm and Softmax out in a dozen ways; what they compute is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.graph.constants import is_constant, shape, values

Samples = NDArray[np.float64]
"""(rows, channels), the last axis that of the tensor; (rows, 1) of what a reduction gives."""

_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Exp": np.exp,
    "Tanh": np.tanh,
    "Erf": np.vectorize(math.erf, otypes=[float]),
    "Identity": np.positive,
}
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": np.mean,
    "ReduceSum": np.sum,
    "ReduceMax": np.max,
}
_MOST = 32
"""Operators followed, at most."""


def responses(x: ir.Value, samples: Samples, rank: int) -> dict[ir.Value, Samples]:
    """What is computed of `x` and constants alone, of its `rank` axes, for `samples`, in order."""
    given: dict[ir.Value, Samples] = {x: samples}
    pending = list(x.consumers())
    with np.errstate(all="ignore"):
        while pending and len(given) < _MOST:
            node = pending.pop(0)
            if node.graph is not x.graph or node.outputs[0] in given:
                continue
            output = _response(node, given, samples.shape[1], rank)
            if output is not None:
                given[node.outputs[0]] = output
                pending += node.outputs[0].consumers()
    return given


def _response(
    node: ir.Node, given: dict[ir.Value, Samples], width: int, rank: int
) -> Samples | None:
    if node.op_type in _REDUCTIONS:
        source = node.inputs[0]
        if source not in given or not over_last_axis(node, rank):
            return None
        reduced: Samples = _REDUCTIONS[node.op_type](given[source], axis=1, keepdims=True)
        return reduced
    if node.op_type not in _ELEMENTWISE:
        return None
    operands = []
    for value in node.inputs:
        operand = given[value] if value in given else _constant(value, width, rank)
        if operand is None:
            return None
        operands.append(operand)
    output: Samples = _ELEMENTWISE[node.op_type](*operands)
    return output


def _constant(value: ir.Value | None, width: int, rank: int) -> Samples | None:
    """A constant that is one number, or one for each channel."""
    if not is_constant(value):
        return None
    dims = shape(value)
    count = math.prod(dims)
    if len(dims) > rank or (count != 1 and (dims[-1] != width or count != width)):
        return None
    array = values(value)
    return array.astype(np.float64).reshape(1, -1) if array.dtype.kind in "fi" else None


def over_last_axis(node: ir.Node, rank: int) -> bool:
    """Whether a reduction is over the last axis, which it keeps."""
    axes = list(node.attributes.get_ints("axes", ()))
    if len(node.inputs) > 1 and is_constant(node.inputs[1]):
        axes = values(node.inputs[1]).tolist()
    kept = node.attributes.get_int("keepdims", 1)
    return bool(kept) and [axis % rank for axis in axes] == [rank - 1]


def alike(got: Samples, want: Samples, tolerance: float) -> bool:
    """Whether two are one function, but for the rounding of constants."""
    if got.shape != want.shape or not np.isfinite(got).all():
        return False
    return bool(np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max()))


def substitute(graph: ir.Graph, old: ir.Value, node: ir.Node) -> None:
    """Let `node`, of values that `old` came from, compute it; what only led there is removed."""
    first = old.producer()
    assert first is not None
    pending = list(first.inputs)
    ir.convenience.replace_nodes_and_values(graph, first, [first], [node], [old], node.outputs)
    while pending:
        value = pending.pop()
        maker = value.producer() if value is not None else None
        if maker is None or maker.graph is not graph:
            continue
        if not any(output.uses() or output.is_graph_output() for output in maker.outputs):
            pending += maker.inputs
            graph.remove(maker, safe=True)
