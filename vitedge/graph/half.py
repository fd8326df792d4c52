"""An FP32 graph in float16, with every operator that would leave float16's range kept in float32.

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
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from vitedge.errors import InputError
from vitedge.graph.halving import Halves, rounded
from vitedge.graph.moments import Progress, shapes, tapped
from vitedge.graph.norms import Norms
from vitedge.graph.run import Runner

FP16_MAX = 65504.0
FP16_NORMAL = 2.0**-14
"""Below this, float16 has fewer than 11 significant bits; below 2⁻²⁴ nothing is left."""
LIMITS = (FP16_MAX / 2, 2.0**11, 2.0**7)
"""Largest |x| left in float16. Half of the range leaves room for images not seen. Where that is
finite but not close, the massive values drown the small ones: the limit falls."""
SQNR_LIMIT_DB = 30.0
"""Of the output against FP32's: a tenth of that noise is usual, more is worse than INT8."""
EXACT_DB = 200.0
CHECKED_RUNS = 8

_SQUARES = (
    *("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"),
    *("LpNormalization", "LpPool", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "LRN"),
)
_SUMS = ("ReduceMean", "ReduceSum", "ReduceL1", "GlobalAveragePool", "AveragePool", "CumSum")
_PIXEL_OPS = ("Cast", "Mul", "Add", "Sub", "Div", "Transpose", "Gather", "Identity")
_DTYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
FLOAT = "tensor(float)"


@dataclass(frozen=True)
class Kept:
    """An operator that stays in float32, and why."""

    node: str
    op: str
    why: str


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
    fp32: Path,
    folder: Path,
    batches: Callable[[], Iterator[NDArray[np.uint8]]],
    total: int,
    progress: Progress,
) -> Halved:
    """Write the ONNX file `fp32` (uint8 NHWC in, float32 out) as `folder/model.onnx` in float16.

    Input, output and preprocessing stay as they are. `batches` starts a stream of `total` images
    (B, H, W, 3) on which max|x| of every activation is measured. Raises InputError when an
    activation is not finite in FP32, or when no float16 graph is finite and close to FP32.
    """
    model = onnx.load(fp32, load_external_data=False)
    first = next(batches())
    sizes = shapes(model, fp32, first)
    norms = Norms(model, sizes, fp32.parent)
    fused = norms.fuse()
    guard = _Guard(model, fp32, norms.spelled_out(), sizes)
    guard.measure(batches(), total, progress)
    path = folder / "model.onnx"
    failed: InputError | None = None
    for limit in LIMITS:
        kept = guard.keep(limit)
        halves = Halves(model, fp32.parent, path, guard.ports(kept))
        halves.write()
        try:
            sqnr_db = _check(model, fp32, path, halves.names, batches())
        except InputError as error:
            failed = failed or error
            continue
        largest, node = guard.largest()
        how = _how_norms(model, kept, fused)
        reasons = tuple(
            Kept(n.name, n.op_type, kept[n.name]) for n in model.graph.node if n.name in kept
        )
        return Halved(path, reasons, how, largest, node, limit, sqnr_db)
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


SPELLED_OUT = "part of a spelled-out norm, whose squares overflow"


class _Guard:
    """What is known of every float tensor, and what that means for every operator."""

    def __init__(
        self,
        model: ModelProto,
        fp32: Path,
        spelled_out: set[str],
        sizes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._model, self._fp32, self._sizes = model, fp32, sizes
        self._spelled_out = spelled_out
        self._opsets = {o.domain or "": o.version for o in model.opset_import}
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        names = [name for node in model.graph.node for name in node.output if name]
        types = dict(zip(names, tapped(model, fp32, [], names).types, strict=True))
        self._activations = [name for name in names if types[name] == FLOAT]
        weights = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
        self._floats = {*self._activations, *weights}
        self._amax = {name: self._weight_amax(name) for name in weights}
        self._pixels = self._preprocessing()

    def _weight_amax(self, name: str) -> float:
        value = numpy_helper.to_array(self._stored[name], str(self._fp32.parent))
        return float(np.abs(value).max(initial=0.0))

    def _preprocessing(self) -> set[str]:
        """The nodes that make normalised pixels of the image: what comes before all else."""
        pixels, found = {self._model.graph.input[0].name}, set()
        for node in self._model.graph.node:
            others = [name for name in node.input if name not in self._stored]
            if node.op_type in _PIXEL_OPS and others and set(others) <= pixels:
                pixels.update(node.output)
                found.add(node.name)
        return found

    def measure(self, batches: Iterator[NDArray[np.uint8]], total: int, progress: Progress) -> None:
        """Take max|x| of every activation; two numbers an activation are kept of a run."""
        nodes, outputs = [], []
        for name in self._activations:
            for op in ("ReduceMax", "ReduceMin"):
                outputs.append(f"{name}/{op}")
                nodes.append(helper.make_node(op, [name], [outputs[-1]], keepdims=0))
        run = tapped(self._model, self._fp32, nodes, outputs)
        seen = 0
        amax = np.zeros(len(self._activations))
        for images in batches:
            extremes = np.abs(np.array(run(images), np.float64)).reshape(-1, 2)
            amax = np.maximum(amax, extremes.max(axis=1))  # keeps NaN
            seen += len(images)
            progress("looking for overflow", seen, total)
        for name, largest in zip(self._activations, amax.tolist(), strict=True):
            if not np.isfinite(largest):
                raise InputError(
                    f"activation '{name}' is NaN or infinite on a calibration image",
                    fix="check the weights and the preprocessing: FP32 itself is broken here",
                )
            self._amax[name] = largest

    def largest(self) -> tuple[float, str]:
        """The largest activation but pixels, and the node it comes from."""
        found = [
            (self._amax[name], node.name)
            for node in self._model.graph.node
            if node.name not in self._pixels
            for name in node.output
            if name in self._amax
        ]
        return max(found, default=(0.0, ""))

    def keep(self, limit: float) -> dict[str, str]:
        """The nodes that stay in float32 so that nothing in float16 exceeds `limit`, and why."""
        found = {}
        for node in self._model.graph.node:
            calculates = any(name in self._floats for name in node.input)
            if calculates and node.name not in self._pixels and (why := self._why(node, limit)):
                found[node.name] = why
        return found

    def _why(self, node: NodeProto, limit: float) -> str:
        if node.name in self._spelled_out:
            return SPELLED_OUT
        if not any(self._ports(node)):
            return "has no float16 form"
        if node.op_type in _SQUARES:
            return "adds up squares inside"
        for name in (*node.input, *node.output):
            largest = self._amax.get(name, 0.0)
            if name in self._stored:
                if largest > FP16_MAX:
                    return f"its constant '{name}' reaches {largest:.3g}"
                if 0 < largest < FP16_NORMAL:
                    return f"its constant '{name}', {largest:.3g}, is too small for float16"
            elif largest > limit:
                return f"'{name}' reaches {largest:.4g}"
        inside = self._inside(node)
        return f"reaches {inside:.3g} inside" if inside > limit else ""

    def _inside(self, node: NodeProto) -> float:
        """The largest value a kernel may hold between input and output, where that is larger."""
        largest = self._amax.get(node.input[0], 0.0) if node.input else 0.0
        if node.op_type in _SUMS:
            before, after = (math.prod(self._sizes[x]) for x in (node.input[0], node.output[0]))
            return largest * max(1, before // max(1, after))
        tanh = any(a.name == "approximate" and a.s == b"tanh" for a in node.attribute)
        return largest**3 if node.op_type == "Gelu" and tanh else 0.0

    def ports(self, kept: Mapping[str, str]) -> dict[str, tuple[list[str], list[str]]]:
        """The inputs and outputs, by node, that become float16."""
        float32 = {*kept, *self._pixels}
        return {n.name: self._ports(n) for n in self._model.graph.node if n.name not in float32}

    def _ports(self, node: NodeProto) -> tuple[list[str], list[str]]:
        """The float inputs and outputs of `node` that ONNX lets be float16; none without inputs."""
        for attribute in node.attribute:
            typed = attribute.name in _DTYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT
            if typed or attribute.type == AttributeProto.GRAPH:
                return [], []
        try:
            version = self._opsets.get(node.domain, 1)
            schema = defs.get_schema(node.op_type, version, node.domain)
        except defs.SchemaError:
            return [], []
        allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

        def halvable(names: list[str], formals: list[defs.OpSchema.FormalParameter]) -> list[str]:
            kinds = [formals[min(i, len(formals) - 1)].type_str for i in range(len(names))]
            return [
                name
                for name, kind in zip(names, kinds, strict=True)
                if name in self._floats and "tensor(float16)" in allowed.get(kind, [kind])
            ]

        inputs = halvable(list(node.input), list(schema.inputs))
        if not inputs:
            return [], []
        return inputs, halvable(list(node.output), list(schema.outputs))


def _check(
    model: ModelProto,
    fp32: Path,
    path: Path,
    halves: set[str],
    batches: Iterator[NDArray[np.uint8]],
) -> float:
    """SQNR of the float16 graph's output, dB; InputError where it is not finite or not close."""
    half = onnx.load(path, load_external_data=False)
    exact = rounded(half, halves)
    want_run = tapped(model, fp32, [], [value.name for value in model.graph.output])
    got_run = tapped(exact, path, [], [value.name for value in model.graph.output])
    Runner(path)  # its types fit
    signal = noise = 0.0
    images: NDArray[np.uint8] | None = None
    for images, _ in zip(batches, range(CHECKED_RUNS), strict=False):
        want, got = (run(images)[0].astype(np.float64) for run in (want_run, got_run))
        signal += float(np.square(want).sum())
        noise += float(np.square(want - got).sum())
        if _sqnr_db(signal, noise) < SQNR_LIMIT_DB:
            break
    sqnr_db = _sqnr_db(signal, noise)
    if sqnr_db >= SQNR_LIMIT_DB:
        return sqnr_db
    assert images is not None
    where, what = _first_failure(model, fp32, exact, path, images)
    raise InputError(
        f"in float16 this model {what} from '{where}' on: its output keeps "
        f"{sqnr_db:.1f} dB of {SQNR_LIMIT_DB:g}",
        fix="export it with --fp32 or --int8",
    )


def _sqnr_db(signal: float, noise: float) -> float:
    """Signal to noise, decibels: -inf where the noise is not finite, EXACT_DB where it is none."""
    if not np.isfinite(noise):
        return -math.inf
    if noise <= signal * 10 ** (-EXACT_DB / 10):
        return EXACT_DB
    return float(10 * np.log10(max(signal, 1e-300) / noise))


def _first_failure(
    model: ModelProto, fp32: Path, exact: ModelProto, path: Path, images: NDArray[np.uint8]
) -> tuple[str, str]:
    """The first node whose output is not finite in `exact`; else the first that is not close."""
    made = {name for node in exact.graph.node for name in node.output}
    nodes = {
        name: node.name
        for node in model.graph.node
        for name in node.output
        if f"{name}.exact" in made
    }
    want = tapped(model, fp32, [], list(nodes))(images)
    got = tapped(exact, path, [], [f"{name}.half.float" for name in nodes])(images)
    pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(want, got, strict=True)]
    broken = [not np.isfinite(y).all() for _, y in pairs]
    if any(broken):
        return list(nodes.values())[broken.index(True)], "is not finite"
    far = [_sqnr_db(np.square(x).sum(), np.square(x - y).sum()) < SQNR_LIMIT_DB for x, y in pairs]
    where = far.index(True) if any(far) else -1
    return list(nodes.values())[where], "drifts from FP32"
