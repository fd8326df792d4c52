"""Inspecting anybody's ONNX file: what is quantized in it, or what a target would quantize."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.errors import missing
from vitedge.core.manifest import Finding
from vitedge.core.spec import Quantization, Target
from vitedge.measure.inspection import Inspection, QuantizedTensor, Row, summarize

if TYPE_CHECKING:
    import onnx_ir as ir

    from vitedge.graph.structure import Structure

_NO_DIALECT = Quantization(activations="int8", weights="full", attention=(), operators=())


def inspect_model(path: Path, target: Target | None) -> Inspection:
    """Inspect an ONNX file: structure alone, or also what `target` makes of it.

    Raises InputError, and UnavailableError where the package onnx is missing.
    """
    model = _read(path)
    from vitedge.graph.structure import INTEGER_PRODUCTS, Structure
    from vitedge.runtimes.lint import lint

    graph = Structure(model)
    quantizers = tuple(_quantizers(graph))
    integer = any(node.op_type in INTEGER_PRODUCTS for node in graph.nodes)
    quantized = bool(quantizers) or integer
    rows = tuple(_quantized_rows(graph) if quantized else _planned_rows(model, target))
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
    )


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


def _planned_rows(model: ir.Model, target: Target | None) -> Iterator[Row]:
    """What `target` would do with each operator of a float graph; without one, what they are."""
    from onnx_ir import to_proto

    from vitedge.quant.policy import decide

    decisions = decide(to_proto(model), target.quantization if target else _NO_DIALECT)
    for depth, decision in enumerate(decisions, start=1):
        why = decision.why if target else "float graph; `target` says what would be quantized"
        yield Row(
            depth=depth,
            node=decision.node,
            op=decision.op,
            role=decision.role,
            quantized=decision.quantized,
            why=why,
        )


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
