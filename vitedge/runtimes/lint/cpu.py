"""Traps of ONNX Runtime and OpenVINO on CPUs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vitedge.core.runtime import Complaint, Rule
from vitedge.core.spec import Target
from vitedge.graph.constants import is_constant, shape
from vitedge.graph.structure import Structure, weight, weights
from vitedge.runtimes.lint import common

PAIR_SUM_MAX = 128
"""255 · 128 ≤ 32,767: two u8×s8 products stay within the 16 bits in which old x86 adds them."""


def _opset(graph: Structure, target: Target) -> Iterator[Complaint]:
    if not target.opset_min <= graph.opset <= target.opset_max:
        yield "", f"opset {graph.opset}; {target.name} takes {target.opset_min}-{target.opset_max}"


def _bad_scale(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        scale = quantizer.scale
        if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
            yield quantizer.node, f"a scale of '{quantizer.tensor}' is zero, negative or not finite"


def _dynamic_batch(graph: Structure, target: Target) -> Iterator[Complaint]:
    if target.batch == "dynamic":
        return
    for value in graph.model.graph.inputs:
        if value.shape and not isinstance(value.shape[0], int) and not is_constant(value):
            yield "", f"input '{value.name}' has a dynamic batch"


def _no_kernel(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, operands in graph.products():
        known = node.op_type in target.quantization.operators
        if known or None in operands or weight(node.inputs[1]) is None:
            continue
        users = node.outputs[0].consumers()
        if [user.op_type for user in users] == ["Relu"]:
            users = users[0].outputs[0].consumers()
        if not users or any(user.op_type != "QuantizeLinear" for user in users):
            yield node.name, f"no INT8 {node.op_type} with a float output on {target.runtime}"


def _bias_rank(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, operands in graph.products():
        if node.op_type != "MatMul" or None in operands:
            continue
        product = node.outputs[0]
        for user in product.consumers():
            biases = filter(is_constant, user.inputs) if user.op_type == "Add" else ()
            flat = any(len(shape(bias)) == 1 for bias in biases)
            if flat and product.shape is not None and len(product.shape) >= 3:
                yield node.name, f"its bias in '{user.name}' has rank 1: the two become a Gemm"


def _asymmetric(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        zero = quantizer.zero
        if quantizer.dtype == "int8" and zero is not None and zero.any():
            yield quantizer.node, f"zero point {zero.flat[0]} of '{quantizer.tensor}' is not 0"


def _saturation(graph: Structure, target: Target) -> Iterator[Complaint]:
    if target.quantization.weights != "pair_safe":
        return
    for node, operands in graph.products():
        constant = None if None in operands else weights(node)
        if constant is None or constant[0].dtype != np.int8:
            continue
        worst = _largest_pair(*constant, fixed_order=node.op_type != "Conv")
        if worst > PAIR_SUM_MAX:
            yield node.name, f"two weights sum to {worst}, which saturates without VNNI"


def _largest_pair(weight: NDArray[np.int8], axis: int, *, fixed_order: bool) -> int:
    """The largest |sum| of two weights of one sign that a 16-bit accumulator may meet.

    Of neighbours (2k, 2k + 1) in `fixed_order`, else of any two of an output channel: the kernels
    of a convolution choose their own order.
    """
    columns = np.moveaxis(weight, axis, -1).reshape(-1, weight.shape[axis]).astype(np.int16)
    if not fixed_order:
        columns = np.sort(columns, axis=0)
        columns = np.concatenate([columns[:2], columns[-2:]])  # two smallest, two largest
    rows = len(columns) // 2 * 2
    first, second = columns[0:rows:2], columns[1:rows:2]
    return int(np.abs(first + second)[(first > 0) == (second > 0)].max(initial=0))


def _decomposed_layer_norm(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in common.decomposed_norms(graph):
        yield node.name, "LayerNorm in six operators; in FP16 its squares overflow past 255"


def _decomposed_gelu(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        if node.op_type == "Erf" and common.comes_from(node, (("Div", "Mul"),)):
            yield node.name, "GELU in five operators"


BIAS_RANK = Rule("bias-rank-1", "INT8 lost", "reshape the bias to (1, 1, N)", _bias_rank)
"""Of ONNX Runtime alone."""
RULES = (
    Rule("opset-range", "rejected", "export it again with an opset in that range", _opset),
    Rule(
        "bad-scale", "other numbers",
        "calibrate again; a tensor that is always zero needs a small positive scale", _bad_scale,
    ),
    Rule(
        "saturation", "other numbers",
        "use a -vnni target where the device has VNNI, else weights with pair_safe", _saturation,
    ),
    common.RESIDUAL,
    Rule(
        "no-int8-kernel", "INT8 lost",
        "leave it in float: it runs there in any case, with INT8's error", _no_kernel,
    ),
    BIAS_RANK,
    common.ONE_OPERAND,
    common.CHANNEL_ACTIVATION,
    Rule("asymmetric", "slower", "quantize symmetrically, with zero point 0", _asymmetric),
    Rule(
        "decomposed-layernorm", "slower",
        "export with opset 17 or newer, so that it is one LayerNormalization",
        _decomposed_layer_norm,
    ),
    Rule(
        "decomposed-gelu", "slower",
        "export with opset 20 or newer, so that it is one Gelu", _decomposed_gelu,
    ),
    Rule("dynamic-batch", "slower", "fix the batch when exporting, for latency", _dynamic_batch),
    common.DEAD_CHANNEL,
)  # fmt: skip
"""Worst first."""
