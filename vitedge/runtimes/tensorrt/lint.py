"""Traps of TensorRT and TensorRT-RTX, which compile a strongly typed graph.

Each was measured: tests compile a graph with it and read the build log.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from vitedge.core.runtime import Complaint, Rule
from vitedge.core.spec import Target
from vitedge.graph.constants import is_constant, names_of, shape
from vitedge.graph.structure import (
    QuantizerNode,
    Structure,
    maker,
    output_axis,
    read_quantizer,
    sizes,
    weight,
)
from vitedge.runtimes.lint import common
from vitedge.runtimes.tensorrt import lint_attention

HALF_SCALES_OPSET = 19
"""The first opset whose QuantizeLinear and DequantizeLinear take float16 scales."""
_STORED = ("int8", "uint8", "int4", "float8e4m3fn", "float4e2m1", "int32")
"""`int32` has its own rule, and so has `uint8` of activations."""
_ONE_TYPE = (
    *("MatMul", "Gemm", "Conv", "Add", "Sub", "Mul", "Div", "Concat", "Where"),
    "LayerNormalization",
)
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
_CONTRIB_TAKEN = ("QuantizeLinear", "DequantizeLinear", "Gelu", "SimplifiedLayerNormalization")
"""Of com.microsoft: what the parser takes for the operator of that name."""
_QDQ = ("QuantizeLinear", "DequantizeLinear")


def _opset(graph: Structure, target: Target) -> Iterator[Complaint]:
    if target.runtime != "tensorrt":  # TensorRT-RTX takes all, from 13 to 26
        return
    if graph.opset > target.opset_max:
        yield "", f"opset {graph.opset}; {target.name} takes up to {target.opset_max}"
    elif _early_half_scales(graph):
        yield "", f"float16 scales in opset {graph.opset}; they need {HALF_SCALES_OPSET}"


def _early_half_scales(graph: Structure) -> bool:
    return graph.opset < HALF_SCALES_OPSET and any(
        quantizer.scale is not None and quantizer.scale.dtype == np.float16
        for quantizer in graph.quantizers()
    )


def _zero_point(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        zeros = None if quantizer.zero is None else quantizer.zero.reshape(-1)
        if zeros is not None and zeros.any():
            worst = zeros[zeros.nonzero()[0][0]]
            yield quantizer.node, f"zero point {worst} of '{quantizer.tensor}' is not 0"


def _stored_type(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        if quantizer.dtype not in _STORED or (quantizer.constant and quantizer.dtype == "uint8"):
            yield quantizer.node, f"'{quantizer.tensor}' is stored as {quantizer.dtype}"


def _int32_bias(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        if quantizer.constant and quantizer.dtype == "int32":
            yield quantizer.node, f"'{quantizer.tensor}' is int32 through a DequantizeLinear"


def _uint8_activation(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        shifted = quantizer.zero is not None and quantizer.zero.any()
        ruled = quantizer.constant or shifted or quantizer.scale is None
        if not ruled and quantizer.dtype == "uint8":
            yield (
                quantizer.node,
                f"'{quantizer.tensor}' as uint8 is read as int8: it clips at 127, not 255",
            )


def _bad_scale(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        if quantizer.scale is not None and not (quantizer.scale > 0).all():
            yield (
                quantizer.node,
                f"a scale of '{quantizer.tensor}' is zero, negative or not a number",
            )


def _infinite_scale(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        if quantizer.scale is not None and np.isinf(quantizer.scale).any():
            yield quantizer.node, f"a scale of '{quantizer.tensor}' is infinite"


def _scale_length(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, quantizer in _per_channel(graph):
        assert quantizer.scale is not None and quantizer.axis is not None
        axis, scales, zero = quantizer.axis, quantizer.scale.size, quantizer.zero
        dims = sizes(node.inputs[0])
        if dims and not -len(dims) <= axis < len(dims):
            yield quantizer.node, f"axis {axis} of '{quantizer.tensor}', which has {len(dims)}"
        elif dims and dims[axis] not in (0, scales):
            yield (
                quantizer.node,
                f"{scales} scales on the {dims[axis]} channels of axis {axis} of "
                f"'{quantizer.tensor}'",
            )
        elif zero is not None and zero.size != scales:
            yield quantizer.node, f"{scales} scales, but {zero.size} zero points"


def _per_channel(graph: Structure) -> Iterator[tuple[ir.Node, QuantizerNode]]:
    """Every DequantizeLinear with a vector of scales; those of blocks are matrices."""
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear":
            quantized = read_quantizer(node)
            scale = quantized.scale
            if quantized.axis is not None and scale is not None and scale.ndim == 1:
                yield node, quantized


def _scalar(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if stored is not None and is_constant(stored) and not shape(stored):
            yield node.name, f"the stored integer '{stored.name}' has no dimensions"


def _mixed_floats(graph: Structure, target: Target) -> Iterator[Complaint]:
    if _early_half_scales(graph):  # ONNX then takes what they scale for float32
        return
    for node in graph.nodes:
        if node.op_type in _ONE_TYPE:
            kinds = {value.dtype for value in node.inputs if value and value.dtype in _FLOATS}
            if len(kinds) > 1:
                names = " and ".join(kind.name.lower() for kind in sorted(kinds))
                yield node.name, f"{node.op_type} of {names}"


def _integer_operator(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        name = node.op_type
        if name.startswith("QLinear") or name.endswith("Integer") or name.startswith("DynamicQ"):
            yield node.name, f"the parser has no {name}"


def _contrib_operator(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        if node.domain.startswith("com.microsoft") and node.op_type not in _CONTRIB_TAKEN:
            yield node.name, f"{node.op_type} is ONNX Runtime's own"


def _name_in_use(graph: Structure, target: Target) -> Iterator[Complaint]:
    used: set[str | None] = set()
    for node in graph.nodes:
        is_qdq = node.op_type in _QDQ
        used.update(names_of(filter(is_constant, node.inputs[: 2 if is_qdq else None])))
        if is_qdq and node.name and node.name in used:
            yield node.name, f"this {node.op_type} is named as another layer"
        used.add(node.name)


def _weight_axis(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, (_, dequantize) in graph.products():
        quantized = read_quantizer(dequantize) if dequantize is not None else None
        if quantized is None or not quantized.constant or quantized.axis is None:
            continue
        rank = len(shape(weight(node.inputs[1])))
        if not -rank <= quantized.axis < rank:  # scale-length says so
            continue
        axis = _axis_as_read(node.inputs[1], quantized.axis % rank, rank)
        output = output_axis(node, rank)
        if axis not in (None, output):
            yield node.name, f"its weight has a scale for each channel of axis {axis}, not {output}"


def _axis_as_read(value: ir.Value | None, axis: int, rank: int) -> int | None:
    """Where `axis` of a dequantized weight is when a product reads it as `value`; None: unclear."""
    moves = []
    node = maker(value)
    while node is not None and node.op_type != "DequantizeLinear":
        moves.append(node)
        node = maker(node.inputs[0])
    for move in reversed(moves):
        if move.op_type == "Transpose":
            order = list(move.attributes.get_ints("perm", range(rank)[::-1]))
            if axis not in order:
                return None
            axis = order.index(axis)
        elif move.op_type != "Identity":
            return None
    return axis


def _computed_scale(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        scale = node.inputs[1] if node.op_type == "QuantizeLinear" else None
        if scale is not None and not _known(scale):
            yield node.name, f"the scale '{scale.name}' is computed when the engine runs"


def _known(value: ir.Value) -> bool:
    """Whether the compiler knows a tensor: it is computed from stored ones, and not reduced."""
    pending, seen = [value], {value}
    while pending:
        value = pending.pop()
        node = maker(value)
        if not is_constant(value) and (node is None or node.op_type.startswith("Reduce")):
            return False
        for source in node.inputs if node is not None else ():
            if source is not None and source not in seen:
                seen.add(source)
                pending.append(source)
    return True


def _half_layer_norm(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in common.decomposed_norms(graph):
        if node.outputs[0].dtype == ir.DataType.FLOAT16:
            yield node.name, "LayerNorm in float16 operators: past 255 its squares overflow"


RULES = (
    Rule("opset-range", "rejected", "export it again with an opset in that range", _opset),
    Rule("zero-point", "rejected", "quantize symmetrically, with zero point 0", _zero_point),
    Rule("stored-type", "rejected", "quantize it to int8", _stored_type),
    Rule(
        "int32-bias", "rejected",
        "leave biases in float (ONNX Runtime's quantizer: QuantizeBias=False)", _int32_bias,
    ),
    Rule(
        "bad-scale", "rejected",
        "calibrate again; a tensor that is always zero needs a small positive scale", _bad_scale,
    ),
    Rule(
        "scale-length", "rejected",
        "one scale and one zero point for each channel of its axis", _scale_length,
    ),
    Rule("scalar-constant", "rejected", "store it with shape [1]", _scalar),
    Rule(
        "mixed-floats", "rejected",
        "cast them to one type; Q/DQ gives its scale's type", _mixed_floats,
    ),
    Rule(
        "integer-operator", "rejected",
        "quantize to QDQ (ONNX Runtime's quantizer: QuantFormat.QDQ)", _integer_operator,
    ),
    Rule(
        "contrib-operator", "rejected",
        "export without ONNX Runtime's graph optimizations", _contrib_operator,
    ),
    Rule("name-in-use", "rejected", "give every node a name of its own", _name_in_use),
    Rule(
        "uint8-activation", "other numbers", "quantize it to int8, with an int8 zero point of 0",
        _uint8_activation,
    ),
    Rule("infinite-scale", "other numbers", "calibrate again", _infinite_scale),
    common.RESIDUAL,
    Rule(
        "half-layernorm", "other numbers",
        "export with opset 17 or newer, so that it is one LayerNormalization", _half_layer_norm,
    ),
    common.ONE_OPERAND,
    common.CHANNEL_ACTIVATION,
    Rule(
        "weight-axis", "INT8 lost",
        "one scale for each output channel: axis 1 of a MatMul's (K, N), 0 of a Conv's",
        _weight_axis,
    ),
    Rule("computed-scale", "INT8 lost", "calibrate, and store the scale", _computed_scale),
    *lint_attention.RULES,
    common.DEAD_CHANNEL,
)  # fmt: skip
"""Worst first."""
