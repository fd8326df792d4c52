"""GELU and Softmax as one operator each, however an exporter has spelled them out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from vitedge.graph import norms
from vitedge.graph.constants import is_constant, values
from vitedge.graph.responses import Samples, alike, responses, substitute
from vitedge.graph.run import Shapes

GELU_OPSET = 20
_TOLERANCE = 1e-6
_DEEPEST = 8
"""Operators between a tensor and the Erf or Tanh of its GELU, at most."""


def fuse(model: ir.Model, sizes: Shapes) -> None:
    """Fuse, in place, LayerNorm, GELU and Softmax; `sizes` are the shapes of all tensors."""
    for node in list(model.graph):
        _skip(model.graph, node, sizes)
    norms.fuse(model, sizes)
    for node in list(model.graph):
        if node.op_type in ("Erf", "Tanh") and model.graph.opset_imports[""] >= GELU_OPSET:
            _fuse_gelu(model.graph, node, sizes)
        elif node.op_type == "Exp":
            _fuse_softmax(model.graph, node, sizes)
        elif node.op_type == "Softmax":
            _unflatten(model.graph, node, sizes)


def _skip(graph: ir.Graph, node: ir.Node, sizes: Shapes) -> None:
    """Take `node` away if it gives what it reads: a mask of zeros that is added, a mask unused."""
    kept = _passed(node)
    output = node.outputs[0]
    if kept is None or output.is_graph_output() or kept.name not in sizes:
        return
    if sizes[kept.name] == sizes.get(output.name):
        output.replace_all_uses_with(kept)
        graph.remove(node, safe=True)


def _passed(node: ir.Node) -> ir.Value | None:
    """The input that `node` passes on for the constants it has, broadcast or not."""
    if node.op_type == "Where" and is_constant(node.inputs[0]):
        chosen = values(node.inputs[0])
        return None if chosen.any() != chosen.all() else node.inputs[1 if chosen.any() else 2]
    neutral = {"Add": 0, "Mul": 1}.get(node.op_type)
    for constant, other in (node.inputs, node.inputs[::-1]) if neutral is not None else ():
        if is_constant(constant) and not is_constant(other):
            return other if (values(constant) == neutral).all() else None
    return None


def _fuse_gelu(graph: ir.Graph, node: ir.Node, sizes: Shapes) -> None:
    grid = np.linspace(-6, 6, 97)
    x = np.stack([grid, grid[::-1]], 1)  # two channels: what reduces them is no GELU
    if node.op_type == "Erf":
        approximate, gelu = "none", x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    else:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        approximate, gelu = "tanh", x * (1 + np.tanh(inner)) / 2
    for source in _sources(node):
        rank = len(sizes.get(source.name, ()))
        for value, got in responses(source, x, rank).items() if rank else ():
            maker = value.producer()
            if maker is not None and alike(got, gelu, _TOLERANCE):
                name, settings = f"{maker.name}/Gelu", {"approximate": approximate}
                substitute(graph, value, ir.node("Gelu", [source], settings, name=name))
                return


def _sources(node: ir.Node) -> Iterator[ir.Value]:
    """The tensors that `node` is computed of, the nearest first."""
    pending, seen = [(value, 1) for value in node.inputs], set(node.inputs)
    while pending:
        value, depth = pending.pop(0)
        if value is None or value.const_value is not None:
            continue
        yield value
        maker = value.producer()
        if maker is not None and depth < _DEEPEST:
            pending += [(source, depth + 1) for source in maker.inputs if source not in seen]
            seen.update(maker.inputs)


def _fuse_softmax(graph: ir.Graph, exponential: ir.Node, sizes: Shapes) -> None:
    source = exponential.inputs[0]
    shift = source.producer() if source is not None else None
    if shift is not None and shift.op_type == "Sub":  # of the maximum
        source = shift.inputs[0]
    rank = len(sizes.get(source.name, ())) if source is not None else 0
    if source is None or rank < 1:
        return
    samples: Samples = np.random.default_rng(0).normal(0, 2, (8, sizes[source.name][-1]))
    softmax = np.exp(samples) / np.exp(samples).sum(1, keepdims=True)
    for value, got in responses(source, samples, rank).items():
        maker = value.producer()
        if maker is not None and maker is not shift and alike(got, softmax, _TOLERANCE):
            name = f"{maker.name}/Softmax"
            substitute(graph, value, ir.node("Softmax", [source], {"axis": -1}, name=name))
            return


def _unflatten(graph: ir.Graph, softmax: ir.Node, sizes: Shapes) -> None:
    """Take the Flatten and Reshape away around a Softmax that is of the last axis anyway.

    Before opset 13, Softmax took its input as a matrix; that is what becomes of it.
    """
    flat = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
    readers = softmax.outputs[0].consumers()
    if flat is None or flat.op_type not in ("Flatten", "Reshape") or len(readers) != 1:
        return
    source, target = flat.inputs[0], readers[0]
    if source is None or target.op_type != "Reshape" or softmax.outputs[0].is_graph_output():
        return
    before, matrix, after = (
        sizes.get(value.name, ()) for value in (source, flat.outputs[0], target.outputs[0])
    )
    last = softmax.attributes.get_int("axis", -1) in (-1, len(matrix) - 1)
    if last and matrix and before and before == after and before[-1] == matrix[-1]:
        name = f"{softmax.name}/last"
        substitute(graph, target.outputs[0], ir.node("Softmax", [source], {"axis": -1}, name=name))
