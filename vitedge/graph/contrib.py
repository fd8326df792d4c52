"""ONNX Runtime's own operators in a graph: an INT8 product with its bias, an attention, as one.

They are what its own optimiser makes of parts of this, but for the bias and most attentions, and of
no one CPU: nothing of a layout is baked in. Each was faster on ViTs where it was timed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vitedge.core.errors import InputError
from vitedge.core.numerics import REWRITE_PARITY
from vitedge.graph.constants import evaluate, is_constant, is_vector, scalar, shape, values
from vitedge.graph.external import constant, load
from vitedge.graph.match import attentions
from vitedge.graph.run import Runner, Shapes, shapes
from vitedge.graph.structure import Structure

DOMAIN = "com.microsoft"
_MOVES = ("Reshape", "Transpose", "Split", "Slice", "Gather", "Squeeze", "Unsqueeze", "Identity")
_HEADS, _TURNED = (0, 2, 1, 3), (0, 3, 1, 2)
INT8_PARITY = 1e-2
"""Noise over signal: where floats differ in the last place, INT8 rounds some the other way."""


def rewrite(plain: Path, path: Path) -> bool:
    """Write the ONNX file `plain` to `path` with such operators; False where none finds its place.

    Raises InputError where the two differ by more than rounding.
    """
    model = load(plain)
    value = model.graph.inputs[0]
    assert value.shape is not None
    sizes_ = [size if isinstance(size, int) else 2 for size in value.shape]
    images = np.random.default_rng(0).integers(0, 256, sizes_, np.uint8)
    tensors = shapes(plain, images)
    half = any(node.attributes.get_int("to", 0) == ir.DataType.FLOAT16 for node in model.graph)
    attentions_ = 0 if half else _attentions(model, tensors)  # the CPU has them in float32 alone
    count = attentions_ + _products(model.graph)
    if not count:
        return False
    RemoveUnusedNodesPass()(model)
    model.opset_imports[DOMAIN] = 1
    onnx.save(ir.to_proto(model), path)
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph)
    _check(plain, path, images, INT8_PARITY if quantized else REWRITE_PARITY**2)
    return True


def _check(plain: Path, path: Path, images: NDArray[np.uint8], limit: float) -> None:
    for want, got in zip(Runner(plain)(images), Runner(path)(images), strict=True):
        noise, signal = (
            np.square(got - want, dtype=np.float64).sum(),
            np.square(want, dtype=np.float64).sum(),
        )
        if not noise <= limit * signal:
            raise InputError(
                "ONNX Runtime's own operators change what the model computes, by "
                f"{math.sqrt(noise / signal):.1e} relative",
                fix="set `contrib = false` in a copy of the target, and report the model",
            )


def _products(graph: ir.Graph) -> int:
    """Make every MatMul of an INT8 activation and an INT8 weight one operator with its bias."""
    count = 0
    for node in list(graph):
        if node.op_type != "MatMul":
            continue
        activation, weight = (_integers(value) for value in node.inputs)
        if activation is None or weight is None:
            continue
        (x, x_scale, x_zero), (w, w_scale, w_zero) = activation, weight
        if not is_constant(w) or len(shape(w)) != 2:
            continue
        output, readers = node.outputs[0], node.outputs[0].consumers()
        inputs = [x, w, x_scale, w_scale, x_zero, w_zero]
        add = readers[0] if len(readers) == 1 and not output.is_graph_output() else None
        if add is not None and (bias := _bias(add, output, shape(w)[1], graph)) is not None:
            inputs.append(bias)
            output = add.outputs[0]
        _replace(graph, node, "MatMulIntegerToFloat", inputs, output, {})
        count += 1
    return count


def _integers(value: ir.Value | None) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Integers, scale and zero point of what a DequantizeLinear gives."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) < 3:
        return None
    integers, scale, zero = node.inputs
    if integers is None or scale is None or zero is None:
        return None
    narrow = (ir.DataType.INT8, ir.DataType.UINT8)
    float32 = scale.const_value is not None and scale.const_value.dtype == ir.DataType.FLOAT
    one_axis = (
        not is_constant(integers)
        or len(shape(scale)) == 0
        or (node.attributes.get_int("axis", 1) in (1, -1))
    )
    return (integers, scale, zero) if float32 and one_axis and zero.dtype in narrow else None


def _bias(add: ir.Node, product: ir.Value, width: int, graph: ir.Graph) -> ir.Value | None:
    """What an Add gives each output channel; None of any other node."""
    if add.op_type != "Add" or add.graph is not graph:
        return None
    (other,) = [value for value in add.inputs if value is not product] or [None]
    if not is_vector(other) or shape(other)[-1] != width:
        return None
    if len(shape(other)) == 1:
        return other
    return constant(graph, f"{add.outputs[0].name}/bias", values(other).reshape(-1))


@dataclass(frozen=True)
class _Operand:
    """An operand of an attention, which holds channels of a tensor (B, tokens, channels), moved."""

    source: ir.Value
    scale: float
    first: int
    """The first of those channels; the others follow."""


def _attentions(model: ir.Model, tensors: Shapes) -> int:
    """Make every attention one operator whose heads are cut from channels in their order."""
    count, graph = 0, model.graph
    nodes = {node.name: node for node in graph}
    for pattern in attentions(Structure(model)):
        qk, softmax, pv = (nodes[n.name] for n in (pattern.qk, pattern.softmax, pattern.pv))
        scores, joined = _scores(softmax.inputs[0], qk), _joined(pv, tensors)
        probabilities = softmax.outputs[0]
        if scores is None or joined is None or probabilities.consumers() != (pv,):
            continue
        heads, size = tensors[pv.outputs[0].name][1], tensors[pv.outputs[0].name][3]
        axes = (_HEADS, _TURNED, _HEADS)  # of q, k and v: to (B, tokens, heads, size)
        values_ = (*qk.inputs, pv.inputs[1])
        operands = [_operand(v, a, tensors) for v, a in zip(values_, axes, strict=True)]
        query, key, value = operands
        if query is None or key is None or value is None or value.scale != 1.0:
            continue
        attributes = {"num_heads": heads, "scale": scores * query.scale * key.scale}
        width, name = heads * size, softmax.name or ""
        inputs = _cut(graph, softmax, (query, key, value), width, tensors, name)
        _replace(graph, softmax, "MultiHeadAttention", inputs, joined, attributes)
        count += 1
    return count


def _scores(value: ir.Value | None, qk: ir.Node) -> float | None:
    """What `qk` is multiplied with to give a softmax's input; None where more is done to it."""
    factor = 1.0
    while value is not None and value.producer() is not qk:
        source, step = _factor(value)
        if source is None or len(value.consumers()) != 1:
            return None
        value, factor = source, factor * step
    alone = value is not None and len(value.consumers()) == 1 and not value.is_graph_output()
    return factor if alone else None


def _factor(value: ir.Value) -> tuple[ir.Value | None, float]:
    """What a scalar multiplies or divides to give `value`, and by how much; None: nothing."""
    node = value.producer()
    if node is None or node.op_type not in ("Mul", "Div"):
        return None, 1.0
    pairs = [tuple(node.inputs), tuple(node.inputs)[::-1]]
    for source, other in pairs[: 1 if node.op_type == "Div" else 2]:
        number = scalar(other)
        if number and source is not None and not is_constant(source):
            return source, number if node.op_type == "Mul" else 1 / number
    return None, 1.0


def _operand(value: ir.Value | None, axes: tuple[int, ...], tensors: Shapes) -> _Operand | None:
    """Where an operand of 4 axes comes from, which `axes` turn to (B, tokens, heads, size)."""
    moved: list[ir.Value] = []
    scale, source = 1.0, value
    while source is not None and (node := source.producer()) is not None:
        before, step = _factor(source)
        if before is not None:
            source, scale = before, scale * step
        elif node.op_type in _MOVES and node.inputs[0] is not None and not is_constant(source):
            moved.append(source)
            source = node.inputs[0]
        else:
            break
        if len(tensors[source.name]) == 3 and (first := _first(source, moved, axes, tensors)) >= 0:
            return _Operand(source, scale, first)
    return None


def _first(
    source: ir.Value, moved: Sequence[ir.Value], axes: tuple[int, ...], tensors: Shapes
) -> int:
    """The first channel of `source` (B, tokens, channels) that is `moved` to be heads; or -1."""
    dims = tensors[source.name]
    ids = np.arange(math.prod(dims), dtype=np.int64).reshape(dims)
    for value in reversed(moved):
        turned_ids = _moved(value, ids, tensors)
        if turned_ids is None:
            return -1
        ids = turned_ids
    if ids.ndim != 4:
        return -1
    turned = ids.transpose(axes)
    flat = turned.reshape(*turned.shape[:2], -1)
    if flat.shape[:2] != tuple(dims[:2]):
        return -1
    first = int(flat[0, 0, 0])
    whole = np.arange(math.prod(dims), dtype=np.int64).reshape(dims)
    return first if np.array_equal(flat, whole[..., first : first + flat.shape[2]]) else -1


def _moved(value: ir.Value, ids: NDArray[np.int64], tensors: Shapes) -> NDArray[np.int64] | None:
    """`ids` of what is moved to be `value`, as that has them."""
    node = value.producer()
    assert node is not None
    if node.op_type == "Reshape":
        return ids.reshape(tensors[value.name])
    outputs = evaluate(node, {node.inputs[0]: ids})
    return outputs[value.index() or 0] if outputs else None


def _joined(pv: ir.Node, tensors: Shapes) -> ir.Value | None:
    """What is made of P·V (B, heads, tokens, size) that is (B, tokens, channels)."""
    value = pv.outputs[0]
    dims = tensors[value.name]
    if len(dims) != 4:
        return None
    ids = np.arange(math.prod(dims), dtype=np.int64).reshape(dims)
    want = ids.transpose(0, 2, 1, 3).reshape(dims[0], dims[2], -1)
    while len(value.consumers()) == 1 and not value.is_graph_output():
        node = value.consumers()[0]
        if node.op_type not in _MOVES or node.inputs[0] is not value:
            return None
        moved = _moved(node.outputs[0], ids, tensors)
        if moved is None or len(node.outputs) > 1:
            return None
        ids, value = moved, node.outputs[0]
        if np.array_equal(ids, want):
            return value
    return None


def _cut(
    graph: ir.Graph,
    before: ir.Node,
    operands: Sequence[_Operand],
    width: int,
    tensors: Shapes,
    name: str,
) -> list[ir.Value]:
    """Each operand's channels as a tensor of their own, by one Split where all are of one."""
    sources = {operand.source for operand in operands}
    firsts = [operand.first for operand in operands]
    source = operands[0].source
    channels = tensors[source.name][2]
    if len(sources) == 1 and sorted(firsts) == [0, width, 2 * width] and channels == 3 * width:
        sizes_ = constant(graph, f"{name}/widths", np.full(3, width, np.int64))
        split = ir.node("Split", [source, sizes_], {"axis": 2}, num_outputs=3, name=f"{name}/Split")
        for place, output in enumerate(split.outputs):
            output.name = f"{name}/part_{place}"
        graph.insert_before(before, split)
        return [split.outputs[first // width] for first in firsts]
    inputs = []
    for place, operand in enumerate(operands):
        if operand.first == 0 and tensors[operand.source.name][2] == width:
            inputs.append(operand.source)
            continue
        bounds = {"start": operand.first, "end": operand.first + width, "axis": 2}
        ends = [
            constant(graph, f"{name}/{place}/{key}", np.array([number], np.int64))
            for key, number in bounds.items()
        ]
        cut = ir.node("Slice", [operand.source, *ends], name=f"{name}/{place}/Slice")
        cut.outputs[0].name = f"{name}/{place}/cut"
        graph.insert_before(before, cut)
        inputs.append(cut.outputs[0])
    return inputs


def _replace(
    graph: ir.Graph,
    at: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value],
    output: ir.Value,
    attributes: dict[str, int | float],
) -> None:
    """Put an operator of `DOMAIN` where `output` was made; what made it is dead then."""
    node = ir.node(kind, inputs, attributes, domain=DOMAIN, name=f"{at.name}/{kind}")
    maker = output.producer()
    assert maker is not None
    name = output.name
    node.outputs[0].shape, node.outputs[0].type = output.shape, output.type
    graph.insert_before(maker, node)
    ir.convenience.replace_all_uses_with(output, node.outputs[0], replace_graph_outputs=True)
    output.name, node.outputs[0].name = f"{name}/before", name
