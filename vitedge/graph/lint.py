"""What a target does not take well in an ONNX graph: one small rule for each known trap.

A rule is a function from graph and target to complaints; RULES says what each one costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from vitedge.graph.structure import Structure
from vitedge.manifest import Consequence, Finding
from vitedge.spec import Target

PAIR_SUM_MAX = 128
"""255 · 128 ≤ 32,767: two u8×s8 products stay within the 16 bits in which old x86 adds them."""

Complaint = tuple[str, str]
"""The node (empty: the whole graph), and what is wrong with it."""


@dataclass(frozen=True)
class Rule:
    """One known trap: how to find it, what it costs, and the way out."""

    id: str
    consequence: Consequence
    fix: str
    find: Callable[[Structure, Target], Iterator[Complaint]]


def lint(model: ModelProto, target: Target) -> tuple[Finding, ...]:
    """Every trap of `target` in `model`, whose weights are loaded, in the order of RULES."""
    graph = Structure(model)
    return tuple(
        Finding(rule=rule.id, node=node, consequence=rule.consequence, what=what, fix=rule.fix)
        for rule in RULES
        for node, what in rule.find(graph, target)
    )


def _opset(graph: Structure, target: Target) -> Iterator[Complaint]:
    if not target.opset_min <= graph.opset <= target.opset_max:
        yield "", f"opset {graph.opset}; {target.name} takes {target.opset_min}-{target.opset_max}"


def _dynamic_batch(graph: Structure, target: Target) -> Iterator[Complaint]:
    if target.batch == "dynamic":
        return
    for value in graph.model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value and graph.stored(value.name) is None:
            yield "", f"input '{value.name}' has a dynamic batch"


def _no_kernel(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, operands in graph.products():
        known = node.op_type in target.quantization.operators
        if known or None in operands or not graph.weight(node.input[1]):
            continue
        users = graph.users(node.output[0])
        if not users or any(user.op_type != "QuantizeLinear" for user in users):
            yield node.name, f"no INT8 {node.op_type} with a float output on {target.runtime}"


def _bias_rank(graph: Structure, target: Target) -> Iterator[Complaint]:
    if target.runtime != "onnxruntime":
        return
    for node, operands in graph.products():
        if node.op_type != "MatMul" or None in operands:
            continue
        for user in graph.users(node.output[0]):
            biases = [graph.stored(name) for name in user.input] if user.op_type == "Add" else []
            flat = any(bias is not None and len(bias.dims) == 1 for bias in biases)
            if flat and graph.ranks.get(node.output[0], 0) >= 3:
                yield node.name, f"its bias in '{user.name}' has rank 1: the two become a Gemm"


def _one_operand(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, (left, right) in graph.products():
        if (left is None) != (right is None):
            yield node.name, f"only its {'second' if left is None else 'first'} operand is INT8"


def _channel_activations(graph: Structure, target: Target) -> Iterator[Complaint]:
    for found in graph.quantizers():
        if not found.constant and found.axis is not None and found.scale is not None:
            yield found.node, f"activation '{found.tensor}' has {found.scale.size} scales"


def _asymmetric(graph: Structure, target: Target) -> Iterator[Complaint]:
    for found in graph.quantizers():
        if found.dtype == "int8" and found.zero is not None and found.zero.any():
            yield found.node, f"zero point {found.zero.flat[0]} of '{found.tensor}' is not 0"


def _saturation(graph: Structure, target: Target) -> Iterator[Complaint]:
    if target.quantization.weights != "pair_safe":
        return
    for node, operands in graph.products():
        found = None if None in operands else graph.weights(node)
        if found is None or found[0].dtype != np.int8:
            continue
        worst = _largest_pair(*found, fixed_order=node.op_type != "Conv")
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


def _residual(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        names = list(node.input)
        if node.op_type == "Add":
            if any(graph.weight(name) for name in names):
                continue
            what = "residual addition"
        elif node.op_type in ("LayerNormalization", "Gelu", "Erf", "Softmax"):
            what, names = node.op_type, names[:1]
        else:
            continue
        if any(graph.dequantize(name) is not None for name in names):
            yield node.name, f"{what} reads INT8 values"


def _decomposed_layer_norm(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        if node.op_type != "Sqrt":
            continue
        path = (("Add",), ("ReduceMean",), ("Pow", "Mul"), ("Sub",), ("ReduceMean",))
        if _comes_from(graph, node, path):
            yield node.name, "LayerNorm in six operators; in FP16 its squares overflow past 255"


def _decomposed_gelu(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        if node.op_type == "Erf" and _comes_from(graph, node, (("Div", "Mul"),)):
            yield node.name, "GELU in five operators"


def _comes_from(graph: Structure, node: NodeProto, path: tuple[tuple[str, ...], ...]) -> bool:
    """Whether some chain of inputs leads from `node` through operators of `path`."""
    if not path:
        return True
    makers = [graph.maker(name) for name in node.input]
    return any(m is not None and m.op_type in path[0] and _comes_from(graph, m, path[1:])
               for m in makers)  # fmt: skip


def _bad_scale(graph: Structure, target: Target) -> Iterator[Complaint]:
    for found in graph.quantizers():
        if found.scale is not None and not (np.isfinite(found.scale) & (found.scale > 0)).all():
            yield found.node, f"a scale of '{found.tensor}' is zero, negative or not finite"


def _dead_channel(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, _ in graph.products():
        found = graph.weights(node)
        if found is None:
            continue
        weight, axis = found
        dead = ~weight.any(axis=tuple(i for i in range(weight.ndim) if i != axis))
        if dead.any():
            yield node.name, f"{dead.sum()} of its {dead.size} output channels are zero weights"


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
    Rule(
        "residual-quantized", "other numbers",
        "take Q/DQ off the residual stream: this is what collapses ViTs", _residual,
    ),
    Rule(
        "no-int8-kernel", "INT8 lost",
        "leave it in float: it runs there in any case, with INT8's error", _no_kernel,
    ),
    Rule("bias-rank-1", "INT8 lost", "reshape the bias to (1, 1, N)", _bias_rank),
    Rule("one-operand", "INT8 lost", "quantize both operands, or neither", _one_operand),
    Rule(
        "per-channel-activation", "INT8 lost",
        "one scale for the tensor; equalize channels beforehand", _channel_activations,
    ),
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
    Rule(
        "dead-channel", "slower",
        "remove these channels, or look why training left them", _dead_channel,
    ),
)  # fmt: skip
"""Worst first."""
