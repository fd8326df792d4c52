"""What a graph gives where a runtime computes float in bfloat16, rounded as OpenVINO's CPU does.

The range is float32's, so nothing overflows, but 8 bits are left of 24. Products, sums and norms
add up in float32 and round what they give; what follows with a constant or nothing beside it, as a
bias or GELU, is computed before that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.core.manifest import Kept
from vitedge.core.matching import in_order
from vitedge.graph.constants import is_constant, names_of
from vitedge.graph.external import load, write
from vitedge.graph.half import quality_db, rounded, to_half
from vitedge.graph.overflow import Guard
from vitedge.graph.run import Runner, shapes, tapped

_FLOAT = "tensor(float)"
_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum")
"""Whose constants are rounded; a bias or a scale stays float32."""
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
"""What is between them is in INT8."""
_FUSED = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Sqrt", "Exp", "Reciprocal", "Clip"),
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Gelu", "Erf", "Sigmoid", "HardSigmoid", "HardSwish"),
    *("Tanh", "Softplus", "Mish"),
)
"""What is computed with the operator before it, of each value alone."""


class Closeness(NamedTuple):
    """SQNR against FP32's of the output that rounding takes most from, dB."""

    output: str
    rounded_db: float
    """With every float result rounded."""
    before_db: float
    """Without: EXACT_DB of FP32 itself."""


def write_rounded(source: Path) -> Path:
    """Write `rounded.onnx` beside the ONNX file `source`: float results rounded to bfloat16.

    So are the weights of products. It shares the external data of `source`. Inputs and outputs
    stay as they are.
    """
    model = load(source)
    names = [name for node in model.graph for name in names_of(node.outputs)]
    types = dict(zip(names, tapped(source, names).types, strict=True))
    first, *_ = computing = list(model.graph)
    for value in list(model.graph.initializers.values()):
        readers = [use for use in value.uses() if use.node.op_type in _PRODUCTS and use.idx < 2]
        if value.dtype == ir.DataType.FLOAT and readers:
            casts = _round(value, f"{value.name}/rounded")
            model.graph.insert_before(first, casts)
            for use in readers:
                use.node.replace_input_with(use.idx, casts[-1].outputs[0])
    for node in computing:
        for value in node.outputs:
            is_float = types.get(value.name or "") == _FLOAT
            if node.op_type in _QUANTIZERS or not is_float or _is_fused(value):
                continue
            name, value.name = value.name or "", f"{value.name}.exact"
            casts = _round(value, name)
            value.replace_all_uses_with(casts[-1].outputs[0], replace_graph_outputs=True)
            casts[0].replace_input_with(0, value)
            model.graph.insert_after(node, casts)
    for node in computing:
        if node.op_type in _PRODUCTS:
            _round_dequantized(node)
    path = source.with_name("rounded.onnx")
    write(model, path)
    return path


def _round_dequantized(product: ir.Node) -> None:
    """Round what a float product reads of a DequantizeLinear, as stored weights, in place."""
    makers = [value.producer() if value is not None else None for value in product.inputs[:2]]
    dequantized = [maker is not None and maker.op_type == "DequantizeLinear" for maker in makers]
    if sum(dequantized) == 1:  # with two it is in INT8
        place = dequantized.index(True)
        value = product.inputs[place]
        assert value is not None and product.graph is not None
        casts = _round(value, f"{value.name}/rounded/{product.name}")
        product.graph.insert_before(product, casts)
        product.replace_input_with(place, casts[-1].outputs[0])


def _is_fused(value: ir.Value) -> bool:
    """Whether what reads `value` is computed with what gives it."""
    readers = value.consumers()
    if len(readers) != 1 or readers[0].op_type not in _FUSED or value.is_graph_output():
        return False
    return all(is_constant(other) for other in readers[0].inputs if other not in (value, None))


def _round(value: ir.Value, name: str) -> list[ir.Node]:
    """The Casts that give `value`, rounded to bfloat16, as `name`."""
    narrow = ir.node("Cast", [value], {"to": ir.DataType.BFLOAT16}, name=f"{name}/to_bfloat16")
    narrow.outputs[0].name = f"{name}/bfloat16"
    wide = ir.node("Cast", [narrow.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{name}/to_float")
    output = wide.outputs[0]
    output.name, output.shape, output.dtype = name, value.shape, ir.DataType.FLOAT
    return [narrow, wide]


class Narrow(NamedTuple):
    """An FP32 graph in bfloat16."""

    path: Path
    simulated: Path
    """In float32, every bfloat16 result rounded: for CPUs."""
    kept: Mapping[str, Kept]
    """What stays in float32, by node."""


def narrow(
    source: Path, folder: Path, images: NDArray[np.uint8], drifting: Collection[str]
) -> Narrow:
    """Write `folder/model.onnx`: the ONNX file `source` with floats of type bfloat16.

    Input, output and preprocessing stay as they are; operators without such a form and those
    called `drifting` stay in float32. `images` are of one run.
    """
    model = load(source)
    guard = Guard(model, source, set(), shapes(source, images), ir.DataType.BFLOAT16)
    kept = guard.without_form()
    for node in model.graph:
        name, why = node.name or "", "it drifts from FP32 in bfloat16"
        if name in drifting:
            kept[name] = Kept(node=name, op=node.op_type, why=why, cause="drift")
    to_half(model, guard.ports(kept), ir.DataType.BFLOAT16)
    path, simulated = folder / "model.onnx", folder / "rounded.onnx"  # they share external data
    write(model, path)
    rounded(model, ir.DataType.BFLOAT16)
    ir.save(model, simulated)
    return Narrow(path, simulated, kept)


def with_sources(source: Path, name: str) -> set[str]:
    """The node `name` of the ONNX file `source`, and those that give its inputs."""
    node = next(node for node in ir.load(source).graph if node.name == name)
    return {name, *(before.name for before in node.predecessors() if before.name)}


def closeness(
    fp32: Path,
    source: Path,
    simulated: Path,
    batches: Iterator[NDArray[np.uint8]],
    orders: Sequence[str],
) -> Closeness:
    """How close to the outputs of `fp32` those of `source` are, rounded as in `simulated`.

    `source` is `fp32` itself, or INT8 made of it. `orders` are as `Manifest.orders` says.
    """
    want_run, got_run = Runner(fp32), Runner(simulated)
    before_run = None if source == fp32 else Runner(source)
    names = want_run.outputs
    signal, noise, before = np.zeros((3, len(names)))
    for images in batches:
        wanted = want_run(images)
        signal += [np.square(x.astype(np.float64)).sum() for x in wanted]
        for run, power in ((got_run, noise), (before_run, before)):
            outputs = in_order(wanted, run(images), orders).outputs if run else wanted
            power += [_power(a, b) for a, b in zip(wanted, outputs, strict=True)]
    levels = [
        Closeness(name, quality_db(s, n), quality_db(s, b))
        for name, s, n, b in zip(names, signal, noise, before, strict=True)
    ]
    return min(levels, key=lambda level: level.rounded_db - level.before_db)


def _power(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.square(a.astype(np.float64) - b).sum())


def first_drift(source: Path, simulated: Path, images: NDArray[np.uint8], limit_db: float) -> str:
    """The first node whose output keeps less than `limit_db` in `simulated`; else the last.

    That is of `write_rounded` or `narrow`.
    """
    given = {value.name for node in ir.load(simulated).graph for value in node.outputs}
    nodes = {
        name: node.name or ""
        for node in ir.load(source).graph
        for name in names_of(node.outputs)
        if f"{name}.exact" in given
    }
    got_run = tapped(simulated, [f"{name}.exact" for name in nodes])
    pairs = zip(tapped(source, list(nodes))(images), got_run(images), strict=True)
    levels = [
        quality_db(float(np.square(want.astype(np.float64)).sum()), _power(want, got))
        for want, got in pairs
    ]
    low = [level_db < limit_db for level_db in levels]
    return list(nodes.values())[low.index(True) if any(low) else -1]
