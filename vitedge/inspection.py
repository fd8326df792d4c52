"""What is quantized in an artifact or in anybody's ONNX file, and what every layer loses by it.

An artifact carries its figures: reading them takes neither torch nor onnx.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from vitedge import catalog, host
from vitedge.artifact import Bundle, open_bundle
from vitedge.errors import InputError, missing
from vitedge.manifest import Figures, Finding, Layer
from vitedge.spec import Quantization, Target

if TYPE_CHECKING:
    from onnx import ModelProto

    from vitedge.graph.structure import Structure

SCHEMA = "vitedge.inspection/1"
_NO_DIALECT = Quantization(activations="int8", weights="full", attention=(), operators=())


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operator that holds multiply-accumulates."""

    depth: int
    """Its place among these operators, in graph order, from 1."""
    node: str
    op: str
    role: str
    quantized: bool
    why: str
    activation_scales: tuple[float, ...] = ()
    weight_scales: tuple[float, float] | None = None
    """Smallest and largest of its output channels."""
    clipped_share: float | None = None
    sqnr_db: float | None = None
    """Of its output, its own rounding alone; None in float, if exact, or not measured."""
    accumulated_sqnr_db: float | None = None
    """Of its output, with all that came before; None if exact or not measured."""
    macs: int | None = None
    """Multiply-accumulates of one image."""


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a QDQ graph that has a scale."""

    tensor: str
    kind: Literal["activation", "weight"]
    dtype: str
    scales: tuple[float, float] | None
    """Smallest and largest; None where the graph computes them."""
    zero_points: tuple[int, int] | None
    """Likewise; None also where there are none."""
    axis: int | None
    """None with one scale for the whole tensor."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The rows in one line."""

    operators: int
    quantized: int
    quantized_macs_share: float | None
    """0-1; None where MACs were not measured."""
    worst: str | None
    """The layer of the lowest own SQNR."""
    worst_sqnr_db: float | None
    accumulated_sqnr_db: float | None
    """At the last layer."""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What `vitedge inspect` found; `rows` are in graph order."""

    schema: str = SCHEMA
    name: str
    kind: Literal["artifact", "model"]
    about: dict[str, str]
    """What it is and where it came from, for people."""
    target: str | None
    notes: tuple[str, ...]
    planned: bool = False
    """Whether `quantized` is what the target would do with a float graph."""
    summary: Summary
    layers: tuple[Row, ...]
    quantizers: tuple[Quantized, ...]
    """Of an ONNX file with Q/DQ."""
    lint: tuple[Finding, ...] | None
    """None where no target was asked for."""

    def worst_first(self) -> list[Row]:
        """The rows by own SQNR; those without in graph order after them."""
        return sorted(
            self.layers, key=lambda row: float("inf") if row.sqnr_db is None else row.sqnr_db
        )


def inspect(path: Path, target: str) -> Inspection:
    """Inspect the artifact or the ONNX file at `path`; an empty `target` means its own, or none.

    Raises InputError, and UnavailableError where the package onnx is needed and missing.
    """
    wanted = catalog.find_target(target, host.describe(threads=0)) if target else None
    if path.suffix == ".onnx" and not path.is_dir():
        return _inspect_model(path, wanted)
    if path.is_file():
        raise InputError(
            f"{path} is neither an artifact's folder nor an ONNX file",
            fix="give the folder that 'vitedge export' wrote, or a FILE.onnx",
        )
    return _inspect_artifact(open_bundle(path), wanted)


def _inspect_artifact(bundle: Bundle, wanted: Target | None) -> Inspection:
    made = bundle.manifest
    record = made.quantization
    rows = tuple(_row(i, layer) for i, layer in enumerate(record.layers if record else (), start=1))
    measured = any(layer.figures for layer in record.layers) if record else False
    notes = []
    if record is None:
        notes.append(
            f"nothing is quantized in {made.precision}: export with --int8, or inspect an ONNX "
            "file with --target to see what would be"
        )
    elif not measured:
        notes.append(
            "this artifact is of an older vitedge, which measured no layers: export it again"
        )
    findings = record.lint if record and measured else None
    if wanted and wanted.name != made.target.name:
        findings = _lint(_artifact_model(bundle), wanted)
    target = wanted or made.target
    about = {
        "model": f"{made.model.name} ({made.model.source})",
        "task": made.model.task,
        "precision": made.precision,
        "target": f"{made.target.name}: {made.target.description}",
        "parity": f"FP32 graph against its source: {made.parity.max_rel_error:.1e} relative",
    }
    if record:
        used = record.calibration
        about["calibration"] = f"{used.recipe.name}, {used.images} images of {used.source}"
        if record.equalization:
            about["equalized"] = f"{len(record.equalization.pairs)} groups of channels"
    about["tools"] = ", ".join(f"{name} {version}" for name, version in made.tools.items())
    about["files"] = ", ".join(f"{name} {sha[:12]}…" for name, sha in bundle.model_files.items())
    return Inspection(
        name=made.name,
        kind="artifact",
        about=about,
        target=target.name,
        notes=tuple(notes),
        summary=_summary(rows),
        layers=rows,
        quantizers=(),
        lint=findings,
    )


def _artifact_model(bundle: Bundle) -> ModelProto:
    if "model.onnx" not in bundle.model_files:
        raise InputError(
            f"{bundle.path} holds no ONNX graph to check against another target",
            fix="drop --target, or give the artifact of ONNX Runtime or the ONNX file",
        )
    return _read(bundle.path / "model.onnx")


def _inspect_model(path: Path, wanted: Target | None) -> Inspection:
    model = _read(path)
    from vitedge.graph.structure import INTEGER_PRODUCTS, Structure

    graph = Structure(model)
    quantizers = tuple(_quantizers(graph))
    integer = any(node.op_type in INTEGER_PRODUCTS for node in graph.nodes)
    quantized = bool(quantizers) or integer
    rows = tuple(_found(graph) if quantized else _planned(model, wanted))
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
        target=wanted.name if wanted else None,
        notes=tuple(notes),
        planned=not quantized and wanted is not None,
        summary=_summary(rows),
        layers=rows,
        quantizers=quantizers,
        lint=_lint(model, wanted) if wanted else None,
    )


def _read(path: Path) -> ModelProto:
    try:
        import onnx.inliner

        from vitedge.graph import files
    except ImportError as error:
        raise missing(error.name or "onnx", "export") from error
    model = files.read(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for node in model.graph.node:
        if not node.name and node.output:
            node.name = node.output[0]
    return model


def _lint(model: ModelProto, target: Target) -> tuple[Finding, ...]:
    from vitedge.graph.lint import lint

    return lint(model, target)


def _row(depth: int, layer: Layer) -> Row:
    figures: dict[str, Any] = {}
    if layer.figures:
        figures = {name: getattr(layer.figures, name) for name in Figures.__struct_fields__}
    return Row(
        depth=depth,
        node=layer.node,
        op=layer.op,
        role=layer.role,
        quantized=layer.quantized,
        why=layer.why,
        **figures,
    )


def _planned(model: ModelProto, target: Target | None) -> Iterator[Row]:
    """What `target` would do with each operator of a float graph; without one, what they are."""
    from vitedge.quant.policy import decide

    decisions = decide(model.graph, target.quantization if target else _NO_DIALECT)
    for depth, decision in enumerate(decisions, start=1):
        why = decision.why if target else "float graph; --target says what would be quantized"
        yield Row(
            depth=depth,
            node=decision.node,
            op=decision.op,
            role=decision.role,
            quantized=decision.quantized,
            why=why,
        )


def _found(graph: Structure) -> Iterator[Row]:
    """What is quantized in a graph that is quantized already."""
    from vitedge.graph.structure import INTEGER_PRODUCTS, PRODUCTS

    operands = {node.output[0]: found for node, found in graph.products()}
    products = [n for n in graph.nodes if n.op_type in (*PRODUCTS, *INTEGER_PRODUCTS)]
    for depth, node in enumerate(products, start=1):
        constant = bool(graph.weight(node.input[3 if node.op_type.startswith("QLinear") else 1]))
        role = ("conv" if "Conv" in node.op_type else "linear") if constant else "product"
        activations: list[float] = []
        weights = None
        if node.op_type in INTEGER_PRODUCTS:
            quantized, why = True, "an integer operator, not QDQ"
        else:
            each = operands[node.output[0]]
            quantized = None not in each
            for dequantize in filter(None, each):
                tensor = graph.quantizer(dequantize)
                if tensor.scale is None:
                    continue
                if tensor.constant:
                    weights = float(tensor.scale.min()), float(tensor.scale.max())
                else:
                    activations += [float(scale) for scale in tensor.scale.reshape(-1)]
            alone = "first" if each[0] else "second"
            why = (
                "both operands have Q/DQ"
                if quantized
                else f"only its {alone} operand has Q/DQ: it runs in float"
                if any(each)
                else "no Q/DQ on its operands"
            )
        yield Row(
            depth=depth,
            node=node.name,
            op=node.op_type,
            role=role,
            quantized=quantized,
            why=why,
            activation_scales=tuple(activations),
            weight_scales=weights,
        )


def _quantizers(graph: Structure) -> Iterator[Quantized]:
    for tensor in graph.quantizers():
        scale, zero = tensor.scale, tensor.zero
        yield Quantized(
            tensor=tensor.tensor,
            kind="weight" if tensor.constant else "activation",
            dtype=tensor.dtype,
            scales=None if scale is None else (float(scale.min()), float(scale.max())),
            zero_points=None if zero is None else (int(zero.min()), int(zero.max())),
            axis=tensor.axis,
        )


def _summary(rows: tuple[Row, ...]) -> Summary:
    macs = sum(row.macs or 0 for row in rows)
    worst = min(
        (row for row in rows if row.sqnr_db is not None),
        key=lambda row: row.sqnr_db or 0.0,
        default=None,
    )
    return Summary(
        operators=len(rows),
        quantized=sum(row.quantized for row in rows),
        quantized_macs_share=sum(row.macs or 0 for row in rows if row.quantized) / macs
        if macs
        else None,
        worst=worst.node if worst else None,
        worst_sqnr_db=worst.sqnr_db if worst else None,
        accumulated_sqnr_db=rows[-1].accumulated_sqnr_db if rows else None,
    )
