"""Inspecting anybody's ONNX file: what is quantized in it, or what a target would quantize."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.errors import InputError, missing
from vitedge.core.manifest import Finding
from vitedge.core.spec import Preprocess, Target
from vitedge.measure.inspection import Inspection, ModelFacts, QuantizedTensor, Row, summarize
from vitedge.measure.inspection.model import NO_DIALECT, facts, plan_of_file
from vitedge.models.sources.base import refuse

if TYPE_CHECKING:
    import onnx_ir as ir

    from vitedge.graph.structure import Structure
    from vitedge.models.sources import ModelRequest, ReferenceModel

PARAMETERS = (
    "weights",
    "arch",
    "task",
    "preprocess",
    "height",
    "width",
    "classes",
    "prompt",
    "model_output",
)
"""Those of a model, which an artifact and a quantized file do not take."""


def inspect_model(path: Path, target: Target | None, asked: ModelRequest) -> Inspection:
    """Inspect the ONNX file at `path`, which `asked` is about: also what `target` makes of it.

    Raises InputError, and UnavailableError where the package onnx is missing.
    """
    model = _read(path)
    from vitedge.graph.structure import INTEGER_PRODUCTS, Structure
    from vitedge.runtimes.lint import lint

    graph = Structure(model, infer=True)
    quantizers = tuple(_quantizers(graph))
    integer = any(node.op_type in INTEGER_PRODUCTS for node in graph.nodes)
    quantized = bool(quantizers) or integer
    known, remarks, notes = None, list[str](), list[str]()
    if quantized:
        refuse(asked, *PARAMETERS)
        rows = tuple(_quantized_rows(graph))
    else:
        rows, known, remarks = _float(model, target, asked)
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
        notes=(*notes, *remarks),
        planned=not quantized and target is not None,
        summary=summarize(rows),
        layers=rows,
        quantizers=quantizers,
        lint=lint(model, target) if target else None,
        model=known,
    )


def _float(
    model: ir.Model, target: Target | None, asked: ModelRequest
) -> tuple[tuple[Row, ...], ModelFacts, list[str]]:
    """What a target would do with a float model, what that is, and what to know of it.

    Raises InputError where `asked` does not go with the file.
    """
    import onnx_ir as ir

    from vitedge.graph.structure import Structure

    reference, lack, refusal = _reference(model, asked)
    notes = list[str]()
    if reference is not None:
        assert isinstance(reference.content, ir.Model)
        notes += reference.identity.notes
        model = reference.content
    elif lack:
        notes.append("the plan is that of the file as it is: an export first binds its sizes")
    elif refusal:
        notes.append(f"the plan is that of the file as it is, which no export takes: {refusal}")
    plan = plan_of_file(model, reference, target)
    notes += [plan.note] if plan.note else []
    rows = tuple(plan.rows(target.quantization if target else NO_DIALECT))
    known = facts(Structure(model, infer=True), plan, target, reference, [lack] if lack else [])
    return rows, known, notes


def _reference(
    model: ir.Model, asked: ModelRequest
) -> tuple[ReferenceModel | None, InputError | None, InputError | None]:
    """What an export makes of the file, the error of what it lacks, or why it takes no such file.

    Raises InputError where a parameter does not go with the file.
    """
    import onnx_ir as ir

    from vitedge.graph.foreign.dimensions import image_input
    from vitedge.models.api import loaded

    refuse(asked, "weights", "arch")
    try:
        return loaded(asked), None, None
    except InputError as error:
        refusal = error
    image = image_input(model.graph)
    if image is not None and asked.preprocess is None:
        pairs = [*zip(image.size, (asked.height, asked.width), strict=True)]
        height, width = (own or given or 0 for own, given in pairs)
        fits = all(not own or given in (None, own) for own, given in pairs)
        if fits and not (height and width):
            return None, refusal, None
        if fits and image.value.dtype == ir.DataType.FLOAT:
            with suppress(InputError):  # then it is not the preprocessing alone
                any_pixels = Preprocess(height=height, width=width)
                reference = loaded(replace(asked, preprocess=any_pixels))
                return replace(reference, missing={"preprocess": refusal}), refusal, None
    if any(getattr(asked, name) for name in PARAMETERS):
        raise refusal
    return None, None, refusal


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
        stored_integers,
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
        operand = None if node.op_type in INTEGER_PRODUCTS else (*node.inputs, None)[1]
        scaling = operand.producer() if operand is not None else None
        stored = scaling is not None and stored_integers(scaling) is not None
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
            why="weights alone in INT8" if stored else why,
            stored=stored,
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
