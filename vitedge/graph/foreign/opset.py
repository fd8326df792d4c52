"""A graph of any opset from 7 to 25 into one of the opset that a target takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx.inliner
import onnx_ir as ir
from onnx import ModelProto, defs, helper, version_converter
from onnx_ir.passes.common import ShapeInferencePass
from onnxscript.version_converter import ConvertVersionPass

from vitedge.core.errors import InputError, error_line
from vitedge.graph.run import Shapes

_SMALL_BYTES = 1024
"""Constants that an operator's conversion may read: axes, sizes, limits."""


def version_of(model: ir.Model) -> int:
    """The opset of ONNX's own operators in `model`."""
    return max(model.opset_imports.get("", 0), model.opset_imports.get("ai.onnx", 0))


def convert(model: ir.Model, opset: int, sizes: Shapes, name: str) -> None:
    """Bring `model`, called `name`, to `opset` in place; it has no functions of its own.

    `sizes` are the shapes of its tensors on some images. Raises InputError, naming the operator,
    where that cannot be.
    """
    version = version_of(model)
    model.opset_imports.pop("ai.onnx", None)
    model.opset_imports[""] = version
    if version != opset:
        declared = {value.name: value.type for value in _values(model.graph)}
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
        _describe(model.graph, sizes)
        if opset < version:
            _spell_out(model.graph, opset)
        ConvertVersionPass(opset, fallback=True)(model)
        if version_of(model) != opset:
            raise _refusal(model.graph, version, opset, name)
        for value in _values(model.graph):  # inference took sequences for tensors, and one batch
            if value not in model.graph.outputs:
                value.type = declared.get(value.name)
                if value.producer() is not None:  # of what a loop hands on, it wants to know
                    value.shape = None
    model.ir_version = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])


def _describe(graph: ir.Graph, sizes: Shapes) -> None:
    """Give every tensor that the main graph computes its shape of `sizes`, or none."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = ir.Shape(sizes[value.name]) if value.name in sizes else None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value that is computed or handed to a subgraph, however deep."""
    for node in graph.all_nodes():
        yield from node.outputs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from attribute.as_graph().inputs


def _spell_out(graph: ir.Graph, opset: int) -> None:
    """Replace the operators that came after `opset` by the older ones that define them."""
    for node in list(graph):
        if node.domain or not defs.has(node.op_type) or defs.has(node.op_type, opset):
            continue
        version = graph.opset_imports[""]
        schema: Any = defs.get_schema(node.op_type, version)  # its stubs lack what it is asked
        if not schema.all_function_opset_versions:
            continue
        model = _single(node, version)
        given = {attribute.name for attribute in model.graph.node[0].attribute}
        for name, attribute in schema.attributes.items():  # its definition refers to them
            if name not in given and attribute.default_value.name:
                model.graph.node[0].attribute.append(attribute.default_value)
        names = [("", node.op_type)]
        inlined = onnx.inliner.inline_selected_functions(model, names, inline_schema_functions=True)
        _splice(graph, node, ir.from_proto(inlined).graph)


def _splice(graph: ir.Graph, node: ir.Node, definition: ir.Graph) -> None:
    """Replace `node` by the nodes of `definition`, whose inputs and outputs have its names."""
    given = {value.name: value for value in node.inputs if value is not None}
    outputs = list(definition.outputs)
    pieces = list(definition)
    for piece in pieces:
        for index, value in enumerate(piece.inputs):
            if value is not None and value.producer() is None:
                piece.replace_input_with(index, given[value.name])
    definition.outputs.clear()
    definition.remove(pieces)
    for index, piece in enumerate(pieces):
        piece.name = f"{node.name}/{piece.op_type}_{index}"
        for value in piece.outputs:
            value.name = f"{node.name}/{value.name}"
    ir.convenience.replace_nodes_and_values(graph, node, [node], pieces, node.outputs, outputs)


def _single(node: ir.Node, opset: int) -> ModelProto:
    """A model of `node` and nothing else, small constants inside."""
    values = [value for value in dict.fromkeys(node.inputs) if value is not None]
    stored = [
        value.const_value
        for value in values
        if value.const_value is not None and value.const_value.nbytes <= _SMALL_BYTES
    ]
    graph = helper.make_graph(
        [ir.to_proto(node)],
        "node",
        [ir.to_proto(value) for value in values],
        [ir.to_proto(value) for value in node.outputs],
        [ir.to_proto(tensor) for tensor in stored],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _refusal(graph: ir.Graph, version: int, opset: int, name: str) -> InputError:
    """The error for what is not converted: the first operator that stands in the way, and why."""
    where, why = "a subgraph", "it cannot be converted"
    for node in graph:
        if node.domain or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            continue
        try:
            version_converter.convert_version(_single(node, version), opset)
        except Exception as error:  # the converter knows no other
            where, why = f"{node.op_type} ('{node.name}')", error_line(error)
            break
    return InputError(
        f"{name} has opset {version}, and {where} has no form in opset {opset}: {why}",
        fix=f"export it again with opset {opset}, or replace that operator",
    )
