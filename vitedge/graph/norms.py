"""LayerNorm and RMSNorm that an exporter spelled out: their squares leave float16 at |x| = 256.

What is a LayerNorm exactly becomes the operator, which adds up in float32; the rest is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.graph.constants import is_constant, scalar, values
from vitedge.graph.external import constant
from vitedge.graph.responses import Samples, alike, over_last_axis, responses, substitute
from vitedge.graph.run import Shapes

_ROOTS = ("Sqrt", "Reciprocal", "Pow")
_SCALINGS = ("Add", "Max", "Clip", "Mul", "Div", "Cast", "Identity")
"""What may stand between the mean of squares and its root, with a constant: ε, 1/N, a bound."""
_ROWS = 16
_TOLERANCE = 1e-6
_LEAST = 1e-12
"""ε where there is none: a token whose channels are all alike is no NaN."""
_EXACT = 1e-12
"""Of the largest value: rounding in float64."""


def fuse(model: ir.Model, sizes: Shapes) -> int:
    """Replace, in place, every exact LayerNorm over the last axis; returns how many.

    What is told is what its operators compute, not how they are written.
    """
    fused = 0
    for mean in list(model.graph):
        while mean.op_type == "ReduceMean" and _fuse_at(mean, sizes):  # two norms may share it
            fused += 1
    return fused


def _fuse_at(mean: ir.Node, sizes: Shapes) -> bool:
    """Replace the LayerNorm of which `mean` is the first operator."""
    x, graph = mean.inputs[0], mean.graph
    dims = sizes.get(x.name, ()) if x is not None else ()
    if x is None or not isinstance(graph, ir.Graph) or len(dims) < 2 or dims[-1] < 2:
        return False
    if not over_last_axis(mean, len(dims)):
        return False
    samples = np.random.default_rng(0).normal(0.5, 2.0, (_ROWS, dims[-1]))
    samples *= np.geomspace(1e-4, 1, _ROWS)[:, None]  # of all sizes: that tells one ε from another
    given = responses(x, samples, len(dims))
    norms = {value: norm for value in given if (norm := _norm(value, given, samples))}
    last = next(iter(norms), None)
    if last is None:
        return False
    while len(last.uses()) == 1 and not last.is_graph_output():
        following = last.consumers()[0].outputs[0]
        if following not in norms:
            break
        last = following
    _replace(graph, x, last, norms[last])
    return True


@dataclass(frozen=True)
class _Norm:
    """(x − mean) / √(variance + ε) · γ + β; γ and β are (channels,)."""

    epsilon: float
    gamma: NDArray[np.float64]
    beta: NDArray[np.float64]
    kind: np.dtype[Any]
    """Of the constants it was written with."""


def _norm(value: ir.Value, given: Mapping[ir.Value, Samples], samples: Samples) -> _Norm | None:
    """The LayerNorm of `samples` that is given as `value`, if one is."""
    got = given[value]
    if got.shape != samples.shape or not np.isfinite(got).all():
        return None
    centred = samples - samples.mean(1, keepdims=True)
    variance = np.square(centred).mean(1, keepdims=True)
    makers = [node for v in given if (node := v.producer()) is not None]
    constants = [value for node in makers for value in node.inputs if is_constant(value)]
    kinds = [kind for value in constants if (kind := values(value).dtype).kind == "f"]
    for epsilon in {number for node in makers if (number := _added(node))} or {_LEAST}:
        normal = centred / np.sqrt(variance + epsilon)
        spread = normal - normal.mean(0)
        gamma = (spread * got).sum(0) / np.square(spread).sum(0)
        beta = (got - gamma * normal).mean(0)
        beta[np.abs(beta) < _EXACT * np.abs(got).max()] = 0
        if gamma.any() and alike(got, gamma * normal + beta, _TOLERANCE):
            kind = kinds[0] if kinds else np.dtype(np.float32)
            return _Norm(epsilon, gamma, beta, kind)
    return None


def _added(node: ir.Node) -> float | None:
    """The number that `node` adds."""
    if node.op_type != "Add":
        return None
    return next((number for value in node.inputs if (number := scalar(value)) is not None), None)


def _replace(graph: ir.Graph, x: ir.Value, last: ir.Value, norm: _Norm) -> None:
    """One LayerNormalization of `x` for `last`."""
    node = last.producer()
    assert node is not None
    gamma = constant(graph, f"{last.name}.gamma", norm.gamma.astype(norm.kind))
    beta = constant(graph, f"{last.name}.beta", norm.beta.astype(norm.kind))
    settings = {"axis": -1, "epsilon": norm.epsilon, "stash_type": 1}
    name = f"{node.name}/LayerNormalization"
    fused = ir.node("LayerNormalization", [x, gamma, beta], settings, name=name)
    substitute(graph, last, fused)


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
