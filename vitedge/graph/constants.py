"""The constants of a graph, which of them may be changed, and what is computed of them alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is stored in the graph."""
    return value is not None and value.const_value is not None


def values(value: ir.Value | None) -> NDArray[Any]:
    """The constant `value` as an array."""
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def shape(value: ir.Value | None) -> tuple[int, ...]:
    """The shape of the constant `value`."""
    assert value is not None and value.const_value is not None
    return tuple(value.const_value.shape.numpy())


def scalar(value: ir.Value | None) -> float | None:
    """The one value of a constant; None of anything else."""
    one = value is not None and value.const_value is not None and value.const_value.size == 1
    return float(values(value).reshape(())) if one else None


def is_weight(value: ir.Value | None, ndim: int = 0) -> bool:
    """Whether `value` is a float32 constant, of `ndim` axes if given, that one node alone reads."""
    return (
        value is not None
        and value.const_value is not None
        and value.const_value.dtype == ir.DataType.FLOAT
        and len(value.uses()) == 1
        and not value.is_graph_output()
        and len(value.const_value.shape) == (ndim or len(value.const_value.shape))
    )


def is_vector(value: ir.Value | None) -> bool:
    """Whether `value` is a constant with one value a channel: small enough to copy if shared."""
    return (
        value is not None
        and value.const_value is not None
        and value.const_value.dtype == ir.DataType.FLOAT
        and sum(size != 1 for size in value.const_value.shape) == 1
    )


def evaluate(
    node: ir.Node, known: Mapping[ir.Value | None, NDArray[Any]]
) -> list[NDArray[Any]] | None:
    """The outputs of `node` for inputs that are `known` or constants; None where others are not."""
    inputs = [value for value in node.inputs if value is not None]
    if node.graph is None or not all(value in known or is_constant(value) for value in inputs):
        return None
    feed = {value.name: known[value] if value in known else values(value) for value in inputs}
    run: Any = ReferenceEvaluator(ir.to_proto(node), opsets=node.graph.opset_imports)
    outputs: list[NDArray[Any]] = run.run(None, feed)
    return outputs


def names_of(ports: Iterable[ir.Value | None]) -> list[str]:
    """The names of a node's inputs or outputs, without those left out."""
    return [value.name for value in ports if value is not None and value.name]


def read_names(nodes: Iterable[NodeProto]) -> set[str]:
    """Every name that `nodes` read, in their subgraphs, too."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                names |= read_names(graph.node) | {value.name for value in graph.output}
    return names
