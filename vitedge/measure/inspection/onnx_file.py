"""Inspecting anybody's ONNX file: what is quantized in it, or what a target would quantize."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.errors import InputError, missing
from vitedge.core.manifest import Finding
from vitedge.core.spec import Target
from vitedge.measure.inspection import Inspection, ModelFacts, QuantizedTensor, Row, summarize
from vitedge.measure.inspection.model import NO_DIALECT, facts, planned_rows

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

    from vitedge.graph.structure import Structure
    from vitedge.models.sources import ModelRequest


def inspect_model(path: Path, target: Target | None, asked: ModelRequest) -> Inspection:
    """Inspect the ONNX file at `path`, which `asked` is about: also what `target` makes of it.

    Raises InputError, and UnavailableError where the package onnx is missing.
    """
    model = _read(path)
    import onnx_ir as ir

    from vitedge.graph.structure import INTEGER_PRODUCTS, Structure
    from vitedge.runtimes.lint import lint

    graph, proto = Structure(model, infer=True), ir.to_proto(model)
    quantizers = tuple(_quantizers(graph))
    integer = any(node.op_type in INTEGER_PRODUCTS for node in graph.nodes)
    quantized = bool(quantizers) or integer
    planned = (
        ()
        if quantized
        else tuple(planned_rows(graph, proto, target.quantization if target else NO_DIALECT))
    )
    rows = tuple(_quantized_rows(graph)) if quantized else planned
    notes = []
    if not rows:
        notes.append("no MatMul, Gemm or Conv: there is nothing to quantize")
    elif quantized:
        notes.append("what a layer loses is measured when vitedge quantizes it, not here")
    about = {
        "file": str(path),
        "opset": str(graph.opset),
        "made by": " ".join(filter(None, (model.producer_name, model.producer_version))) or "?",
        "precision": "quantized" if quantized else "float",
    }
    return Inspection(
        name=path.name,
        kind="model",
        about=about,
        target=target.name if target else None,
        notes=tuple(notes),
        planned=not quantized and target is not None,
        summary=summarize(rows),
        layers=rows,
        quantizers=quantizers,
        lint=lint(model, target) if target else None,
        model=None if quantized else _facts(graph, proto, target, asked),
    )


def _facts(
    graph: Structure, model: ModelProto, target: Target | None, asked: ModelRequest
) -> ModelFacts:
    """What a float model is, and what keeps it from being exported as it is."""
    from vitedge.models.api import loaded

    try:
        reference = loaded(asked)
    except InputError as error:
        return facts(graph, model, target, None, [error])
    return facts(graph, model, target, reference, ())


def lint_file(path: Path, target: Target) -> tuple[Finding, ...]:
    """What `target` does not take well in an ONNX file. Raises as `inspect_model` does."""
    model = _read(path)
    from vitedge.runtimes.lint import lint

    return lint(model, target)


def _read(path: Path) -> ir.Model:
    try:
        from vitedge.graph.io import read_inlined
    except ImportError as error:
        raise missing(error.name or "onnx", "export") from error
    return read_inlined(path)


def _quantized_rows(graph: Structure) -> Iterator[Row]:
    """What is quantized in a graph that is quantized already."""
    from vitedge.graph.structure import (
        FLOAT_PRODUCTS,
        INTEGER_PRODUCTS,
        PRODUCTS,
        read_quantizer,
        weight,
    )

    pairs = {node.outputs[0]: pair for node, pair in graph.products()}
    counted = (*PRODUCTS, *INTEGER_PRODUCTS, *FLOAT_PRODUCTS)
    products = [node for node in graph.nodes if node.op_type in counted]
    for depth, node in enumerate(products, start=1):
        role = FLOAT_PRODUCTS.get(node.op_type, "product")
        if node.op_type not in FLOAT_PRODUCTS and weight(
            node.inputs[3 if node.op_type.startswith("QLinear") else 1]
        ):
            role = "conv" if "Conv" in node.op_type else "linear"
        activations: list[float] = []
        weights = None
        if node.op_type in INTEGER_PRODUCTS:
            quantized, why = True, "an integer operator, not QDQ"
        elif node.op_type in FLOAT_PRODUCTS:
            quantized, why = False, f"no INT8 {node.op_type}"
        else:
            operands = pairs[node.outputs[0]]
            quantized = None not in operands
            for dequantize in filter(None, operands):
                tensor = read_quantizer(dequantize)
                if tensor.scale is None:
                    continue
                if tensor.constant:
                    weights = float(tensor.scale.min()), float(tensor.scale.max())
                else:
                    activations += [float(scale) for scale in tensor.scale.reshape(-1)]
            position = "first" if operands[0] else "second"
            why = (
                "both operands have Q/DQ"
                if quantized
                else f"only its {position} operand has Q/DQ: it runs in float"
                if any(operands)
                else "no Q/DQ on its operands"
            )
        yield Row(
            depth=depth,
            node=node.name or "",
            op=node.op_type,
            role=role,
            quantized=quantized,
            why=why,
            activation_scales=tuple(activations),
            weight_scales=weights,
        )


def _quantizers(graph: Structure) -> Iterator[QuantizedTensor]:
    for tensor in graph.quantizers():
        scale, zero = tensor.scale, tensor.zero
        yield QuantizedTensor(
            tensor=tensor.tensor,
            kind="weight" if tensor.constant else "activation",
            dtype=tensor.dtype,
            scales=None if scale is None else (float(scale.min()), float(scale.max())),
            zero_points=None if zero is None else (int(zero.min()), int(zero.max())),
            axis=tensor.axis,
        )
