"""A graph in float16, with every operator that would leave float16's range kept in float32.

onnxruntime.transformers.float16 converts too, but clips what overflows and looks at no activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.manifest import Half, Kept
from vitedge.core.numerics import sqnr_db
from vitedge.graph.constants import names_of
from vitedge.graph.external import changed, constant, load, write
from vitedge.graph.norms import fuse, spelled_out
from vitedge.graph.overflow import FP16_MAX, SPELLED_OUT, Guard
from vitedge.graph.run import Progress, Runner, shapes, tapped

LIMITS = (FP16_MAX / 2, 2.0**11, 2.0**7)
"""Largest |x| left in float16. Half of the range leaves room for images not seen. Where that is
finite but not close, the massive values drown the small ones: the limit falls."""
SQNR_LIMIT_DB = 40.0
"""Of the output against FP32's: 60 dB is usual, and below 40 INT8 would be as good."""
INT8_LOSS_DB = 1.0
"""Of INT8's SQNR that float16 may take: a rounding that moves a value to the next level."""
EXACT_DB = 200.0
CHECKED_RUNS = 8
_FLOAT = ir.DataType.FLOAT


def halve(
    source: Path,
    fp32: Path,
    folder: Path,
    batches: Callable[[], Iterator[NDArray[np.uint8]]],
    total: int,
    images: str,
    progress: Progress,
) -> Half:
    """Write the ONNX file `source` (uint8 NHWC in, float32 out) as `folder/model.onnx` in float16.

    `source` is the FP32 graph of the file `fp32`, or INT8 made of it with its floats in float32.
    Input, output and preprocessing stay as they are. `batches` starts a stream of `total` images
    (B, H, W, 3) of the set `images`, on which max|x| of every activation is measured. Raises
    InputError when an activation is not finite, or when no float16 graph is finite and close to
    FP32.
    """
    model, sizes = load(source), shapes(source, next(batches()))
    fused = fuse(model, sizes)
    guard = Guard(model, source, spelled_out(model.graph), sizes)
    guard.measure(batches(), total, progress)
    path, exact = folder / "model.onnx", folder / "rounded.onnx"  # they share external data
    failed: InputError | None = None
    for limit in LIMITS:
        kept = guard.keep(limit)
        half = model.clone()
        to_half(half, guard.ports(kept))
        write(half, path)
        Runner(path)  # its types fit
        rounded(half)
        ir.save(half, exact)
        try:
            quality_db = _check(source, fp32, exact, batches())
        except InputError as error:
            failed = failed or error
            continue
        finally:
            exact.unlink()
        largest, node = guard.largest()
        how = _how_norms(model.graph, kept, fused)
        return Half(
            kept=tuple(kept.values()),
            layer_norm=how,
            largest=largest,
            largest_node=node,
            limit=limit,
            sqnr_db=quality_db,
            source=images,
            images=total,
        )
    assert failed is not None
    raise failed


def _how_norms(graph: ir.Graph, kept: Mapping[str, Kept], fused: int) -> str:
    """How LayerNorm is computed, in words."""
    norms = [node.name for node in graph if node.op_type == "LayerNormalization"]
    spelled = sum(operator.why == SPELLED_OUT for operator in kept.values())
    float32 = sum(name in kept for name in norms)
    parts = []
    if len(norms) > float32:
        parts.append(f"{len(norms) - float32} fused, adding up in float32 (stash_type 1)")
    if float32:
        parts.append(f"{float32} fused, kept in float32")
    if spelled:
        parts.append("spelled-out norms kept in float32")
    if fused:
        parts.append(f"{fused} of them fused from their parts")
    return "; ".join(parts) or "none in this model"


def _check(source: Path, fp32: Path, exact: Path, batches: Iterator[NDArray[np.uint8]]) -> float:
    """SQNR of the float16 graph's main output, dB.

    Raises InputError where an output is not finite or not close.
    """
    want_run, got_run = Runner(fp32), Runner(exact)
    before_run = want_run if source == fp32 else Runner(source)
    names = want_run.outputs
    signal, noise, before = np.zeros((3, len(names)))
    images: NDArray[np.uint8] | None = None
    for images, _ in zip(batches, range(CHECKED_RUNS), strict=False):
        wanted, outputs = want_run(images), got_run(images)
        sources = wanted if before_run is want_run else before_run(images)
        for i, (want, got, of_source) in enumerate(zip(wanted, outputs, sources, strict=True)):
            want = want.astype(np.float64)
            signal[i] += np.square(want).sum()
            before[i] += np.square(want - of_source).sum()
            noise[i] += np.square(want - got).sum()
    allowed = before * 10 ** (INT8_LOSS_DB / 10) + signal * 10 ** (-SQNR_LIMIT_DB / 10)
    failed = np.flatnonzero(~(noise <= allowed))
    if not len(failed):
        return quality_db(signal[0], noise[0])
    assert images is not None
    where, what = _first_failure(source, exact, images)
    i = failed[0]
    which = f"output '{names[i]}'" if len(names) > 1 else "output"
    raise InputError(
        f"in float16 this model {what} from '{where}' on: its {which} keeps "
        f"{quality_db(signal[i], noise[i]):.1f} dB of {quality_db(signal[i], allowed[i]):.1f}",
        fix="export it with `precision='fp32'`",
    )


def quality_db(signal: float, noise: float) -> float:
    """SQNR, within ±EXACT_DB; the least where the noise is not finite."""
    if not math.isfinite(noise):
        return -EXACT_DB
    level_db = sqnr_db(max(signal, 1e-300), noise)
    return EXACT_DB if level_db is None else min(level_db, EXACT_DB)


def _first_failure(source: Path, exact: Path, images: NDArray[np.uint8]) -> tuple[str, str]:
    """The first node whose output is not finite in `exact`; else the first that is not close."""
    tensors = {value.name for node in ir.load(exact).graph for value in node.outputs}
    nodes = {
        name: node.name or ""
        for node in ir.load(source).graph
        for name in names_of(node.outputs)
        if f"{name}.exact" in tensors
    }
    want = tapped(source, list(nodes))(images)
    got = tapped(exact, [f"{name}.half" for name in nodes])(images)
    pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(want, got, strict=True)]
    broken = [not np.isfinite(y).all() for _, y in pairs]
    if any(broken):
        return list(nodes.values())[broken.index(True)], "is not finite"
    far = [quality_db(np.square(x).sum(), np.square(x - y).sum()) < SQNR_LIMIT_DB for x, y in pairs]
    where = far.index(True) if any(far) else -1
    return list(nodes.values())[where], "drifts from FP32"


def to_half(
    model: ir.Model,
    ports: Mapping[str, tuple[list[str], list[str]]],
    kind: ir.DataType = ir.DataType.FLOAT16,
) -> None:
    """Make the inputs and outputs that `ports` lists, by node, of `kind` in `model`, in place.

    A tensor keeps its name in float32; its narrow version is `<name>.half`. Casts go where an
    operator reads another version than there is.
    """
    graph = model.graph
    halves: dict[ir.Value, ir.Value] = {}
    for node in graph:
        inputs, outputs = ports.get(node.name or "", ([], []))
        for index, value in enumerate(node.inputs):
            if value is None or value.name not in inputs:
                continue
            if value not in halves:
                halves[value] = _half(graph, value, node, kind)
            node.replace_input_with(index, halves[value])
        for value in node.outputs:
            if value.name in outputs:
                halves[_cast_back(value, f"{value.name}.half", kind, _FLOAT)] = value
    for value in halves:
        cast = value.producer()
        unread = not value.uses() and not value.is_graph_output()
        if cast is not None and cast.op_type == "Cast" and unread:
            graph.remove(cast, safe=True)


def _half(graph: ir.Graph, value: ir.Value, reader: ir.Node, kind: ir.DataType) -> ir.Value:
    """The narrow version of `value`: another constant, or a Cast before its first reader."""
    name = f"{value.name}.half"
    if value.const_value is not None:
        return constant(graph, name, changed(value.const_value, kind, lambda array: array))
    return _cast(value, name, kind, reader)


def _cast(value: ir.Value, name: str, kind: ir.DataType, reader: ir.Node) -> ir.Value:
    """`value` as `kind`, by a Cast before `reader`."""
    assert reader.graph is not None
    cast = ir.node("Cast", [value], {"to": kind}, name=f"{name}/Cast")
    cast.outputs[0].name, cast.outputs[0].dtype = name, kind
    reader.graph.insert_before(reader, cast)
    return cast.outputs[0]


def _cast_back(value: ir.Value, name: str, kind: ir.DataType, old_kind: ir.DataType) -> ir.Value:
    """Let the node of `value` make it as `name`, of `kind`; returns the old value, cast of that."""
    node, graph = value.producer(), value.graph
    assert node is not None and isinstance(graph, ir.Graph)
    cast = ir.node("Cast", [None], {"to": old_kind}, name=f"{value.name}/Cast")
    old = cast.outputs[0]
    old.name, old.dtype, old.shape = value.name, old_kind, value.shape
    value.replace_all_uses_with(old, replace_graph_outputs=True)
    cast.replace_input_with(0, value)
    value.name, value.type = name, ir.TensorType(kind)
    graph.insert_after(node, cast)
    return old


def rounded(half: ir.Model, kind: ir.DataType = ir.DataType.FLOAT16) -> None:
    """Put `half` into float32, in place, with every result of `kind` rounded to it.

    ONNX Runtime's CPU computes runs of float16 operators in float32 and drops the Casts between
    that it put there itself: an overflow would not show. Casts of the graph's own are honoured.
    """
    widened: dict[ir.Value, ir.Value] = {}
    for node in half.graph:
        ports = [value for value in (*node.inputs, *node.outputs) if value is not None]
        if node.op_type == "Cast" and any(value.dtype == kind for value in ports):
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != kind:
                continue
            if value not in widened:
                widened[value] = _cast(value, f"{value.name}.float", _FLOAT, node)
            node.replace_input_with(index, widened[value])
        for value in node.outputs:
            if value.dtype == kind:
                name = (value.name or "").removesuffix(".half")
                _cast_back(value, f"{name}.exact", _FLOAT, kind)
