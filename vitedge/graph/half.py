"""A graph in float16, with every operator that would leave float16's range kept in float32.

onnxruntime.transformers.float16 converts too, but clips what overflows and looks at no activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from vitedge.core.errors import InputError
from vitedge.core.manifest import Kept
from vitedge.core.numerics import sqnr_db
from vitedge.graph.external import DataFile
from vitedge.graph.norms import Norms
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


@dataclass(frozen=True)
class Halved:
    """The float16 graph, and what was found on the way to it."""

    path: Path
    kept: tuple[Kept, ...]
    layer_norm: str
    largest: float
    """max|x| over all activations and images."""
    largest_node: str
    """The operator it came from."""
    limit: float
    """The largest |x| left in float16."""
    sqnr_db: float
    """Of the output, with every float16 result rounded, against FP32's."""


def halve(
    source: Path,
    fp32: Path,
    folder: Path,
    batches: Callable[[], Iterator[NDArray[np.uint8]]],
    total: int,
    progress: Progress,
) -> Halved:
    """Write the ONNX file `source` (uint8 NHWC in, float32 out) as `folder/model.onnx` in float16.

    `source` is the FP32 graph of the file `fp32`, or INT8 made of it with its floats in float32.
    Input, output and preprocessing stay as they are. `batches` starts a stream of `total` images
    (B, H, W, 3) on which max|x| of every activation is measured. Raises InputError when an
    activation is not finite, or when no float16 graph is finite and close to FP32.
    """
    model = onnx.load(source, load_external_data=False)
    first = next(batches())
    sizes = shapes(model, source, first)
    norms = Norms(model, sizes, source.parent)
    fused = norms.fuse()
    guard = Guard(model, source, norms.spelled_out(), sizes)
    guard.measure(batches(), total, progress)
    path = folder / "model.onnx"
    failed: InputError | None = None
    for limit in LIMITS:
        kept = guard.keep(limit)
        halves = Halves(model, source.parent, path, guard.ports(kept))
        halves.write()
        try:
            quality_db = _check(model, source, fp32, path, halves.names, batches())
        except InputError as error:
            failed = failed or error
            continue
        largest, node = guard.largest()
        how = _how_norms(model, kept, fused)
        reasons = tuple(
            Kept(node=n.name, op=n.op_type, why=kept[n.name])
            for n in model.graph.node
            if n.name in kept
        )
        return Halved(path, reasons, how, largest, node, limit, quality_db)
    assert failed is not None
    raise failed


def _how_norms(model: ModelProto, kept: Mapping[str, str], fused: int) -> str:
    """How LayerNorm is computed, in words."""
    norms = [n.name for n in model.graph.node if n.op_type == "LayerNormalization"]
    spelled = sum(why == SPELLED_OUT for why in kept.values())
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


def _check(
    model: ModelProto,
    source: Path,
    fp32: Path,
    path: Path,
    halves: set[str],
    batches: Iterator[NDArray[np.uint8]],
) -> float:
    """SQNR of the float16 graph's output, dB; InputError where it is not finite or not close."""
    half = onnx.load(path, load_external_data=False)
    exact = rounded(half, halves)
    want_run = Runner(fp32)
    before_run = want_run if source == fp32 else Runner(source)
    got_run = tapped(exact, path, [value.name for value in model.graph.output])
    Runner(path)  # its types fit
    signal = noise = before = 0.0
    images: NDArray[np.uint8] | None = None
    for images, _ in zip(batches, range(CHECKED_RUNS), strict=False):
        want, got = (run(images)[0].astype(np.float64) for run in (want_run, got_run))
        signal += float(np.square(want).sum())
        if before_run is not want_run:
            before += float(np.square(want - before_run(images)[0]).sum())
        noise += float(np.square(want - got).sum())
    allowed = before * 10 ** (INT8_LOSS_DB / 10) + signal * 10 ** (-SQNR_LIMIT_DB / 10)
    quality_db = _quality_db(signal, noise)
    if noise <= allowed:
        return quality_db
    assert images is not None
    where, what = _first_failure(model, source, exact, path, images)
    raise InputError(
        f"in float16 this model {what} from '{where}' on: its output keeps "
        f"{quality_db:.1f} dB of {_quality_db(signal, allowed):.1f}",
        fix="export it with --fp32",
    )


def _quality_db(signal: float, noise: float) -> float:
    """SQNR, EXACT_DB at most; -inf where the noise is not finite."""
    if not math.isfinite(noise):
        return -math.inf
    quality_db = sqnr_db(max(signal, 1e-300), noise)
    return EXACT_DB if quality_db is None else min(quality_db, EXACT_DB)


def _first_failure(
    model: ModelProto, source: Path, exact: ModelProto, path: Path, images: NDArray[np.uint8]
) -> tuple[str, str]:
    """The first node whose output is not finite in `exact`; else the first that is not close."""
    tensors = {name for node in exact.graph.node for name in node.output}
    nodes = {
        name: node.name
        for node in model.graph.node
        for name in node.output
        if f"{name}.exact" in tensors
    }
    want = tapped(model, source, list(nodes))(images)
    got = tapped(exact, path, [f"{name}.half.float" for name in nodes])(images)
    pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(want, got, strict=True)]
    broken = [not np.isfinite(y).all() for _, y in pairs]
    if any(broken):
        return list(nodes.values())[broken.index(True)], "is not finite"
    far = [
        _quality_db(np.square(x).sum(), np.square(x - y).sum()) < SQNR_LIMIT_DB for x, y in pairs
    ]
    where = far.index(True) if any(far) else -1
    return list(nodes.values())[where], "drifts from FP32"


class Halves:
    """Writes `model` with the inputs and outputs that `ports` lists, by node, in float16.

    A tensor keeps its name in float32; its float16 version is `<name>.half`. Casts go where an
    operator reads another version than there is.

    `folder` holds the model's external data; the written file has its own beside it.
    """

    def __init__(
        self,
        model: ModelProto,
        folder: Path,
        path: Path,
        ports: Mapping[str, tuple[list[str], list[str]]],
    ) -> None:
        self._model, self._folder, self._path, self._ports = model, str(folder), path, ports
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._written: set[str] = set()
        self._nodes: list[NodeProto] = []
        self.names: set[str] = set()
        """The tensors that are float16 in the written graph."""

    def write(self) -> None:
        """Write the ONNX file; weights are read one at a time."""
        graph = self._model.graph
        for node in graph.node:
            self._place(node)
        for value in graph.output:
            self._float(value.name)
        written = ModelProto()
        written.CopyFrom(self._model)
        del written.graph.node[:], written.graph.initializer[:], written.graph.value_info[:]
        written.graph.node.extend(self._nodes)
        written.graph.initializer.extend(self._tensors())
        onnx.save(written, self._path)

    def _place(self, node: NodeProto) -> None:
        """Append `node`, and the Casts it needs."""
        placed = NodeProto.FromString(node.SerializeToString())
        inputs, outputs = self._ports.get(node.name, ([], []))
        for index, name in enumerate(node.input):
            placed.input[index] = self._half(name) if name in inputs else self._float(name)
        for name in _captured(node):
            self._float(name)
        for index, name in enumerate(node.output):
            if name in outputs:
                placed.output[index] = f"{name}.half"
                self.names.add(f"{name}.half")
            self._written.add(placed.output[index])
        self._nodes.append(placed)

    def _half(self, name: str) -> str:
        """The float16 version of `name`, made where there is none."""
        half = f"{name}.half"
        self.names.add(half)
        if half not in self._written and name not in self._stored:
            self._cast(name, half, TensorProto.FLOAT16)
        self._written.add(half)
        return half

    def _float(self, name: str) -> str:
        """The original `name`, made again where there is only a float16 version."""
        if (
            name not in self._written
            and f"{name}.half" in self._written
            and name not in self._stored
        ):
            self._cast(f"{name}.half", name, TensorProto.FLOAT)
        self._written.add(name)
        return name

    def _cast(self, name: str, to: str, kind: int) -> None:
        self._nodes.append(helper.make_node("Cast", [name], [to], f"{to}/Cast", to=kind))

    def _tensors(self) -> list[TensorProto]:
        """The constants that are read, large ones in the data file."""
        data = DataFile(self._path)
        for name, tensor in self._stored.items():
            versions = [v for v in (name, f"{name}.half") if v in self._written]
            if not versions:
                continue
            value = numpy_helper.to_array(tensor, self._folder)
            for version in versions:
                data.add(version, value if version == name else value.astype(np.float16))
        return data.tensors


def _captured(node: NodeProto) -> Iterator[str]:
    """The names that the subgraphs of `node` may read from outside."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield from _read_in(attribute.g)


def _read_in(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        yield from _captured(node)
    yield from (value.name for value in graph.output)


def rounded(half: ModelProto, names: set[str]) -> ModelProto:
    """`half` in float32, with every float16 result of an operator rounded to float16.

    ONNX Runtime's CPU computes runs of float16 operators in float32 and drops the Casts between
    that it put there itself: an overflow would not show. Casts of the graph's own are honoured.
    """
    nodes: list[NodeProto] = []
    widened: set[str] = set()

    def widen(name: str) -> str:
        if name not in widened:
            widened.add(name)
            nodes.append(helper.make_node("Cast", [name], [f"{name}.float"], to=TensorProto.FLOAT))
        return f"{name}.float"

    for node in half.graph.node:
        casts = node.op_type == "Cast" and names & {*node.input, *node.output}
        placed = NodeProto.FromString(node.SerializeToString())
        nodes_after = []
        if not casts:
            for index, name in enumerate(node.input):
                if name in names:
                    placed.input[index] = widen(name)
            for index, name in enumerate(node.output):
                if name in names:
                    placed.output[index] = f"{name.removesuffix('.half')}.exact"
                    nodes_after.append(
                        helper.make_node(
                            "Cast", [placed.output[index]], [name], to=TensorProto.FLOAT16
                        )
                    )
        nodes += [placed, *nodes_after]
        for name in node.output:
            if name in names and not casts:
                widen(name)
    exact = ModelProto()
    exact.CopyFrom(half)
    del exact.graph.node[:]
    exact.graph.node.extend(nodes)
    return exact
