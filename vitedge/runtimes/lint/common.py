"""Traps that more than one runtime has."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vitedge.core.runtime import Complaint, Rule
from vitedge.core.spec import Target
from vitedge.graph.match import two_activations
from vitedge.graph.structure import Structure, dequantize, maker, weights


def _one_operand(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, (left, right) in graph.products():
        if (left is None) != (right is None):
            yield node.name, f"only its {'second' if left is None else 'first'} operand is INT8"


def _channel_activations(graph: Structure, target: Target) -> Iterator[Complaint]:
    for quantizer in graph.quantizers():
        scale = quantizer.scale
        if not quantizer.constant and quantizer.axis is not None and scale is not None:
            yield quantizer.node, f"activation '{quantizer.tensor}' has {scale.size} scales"


def _residual(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node in graph.nodes:
        if node.op_type == "Add" and two_activations(node):
            what, operands = "residual addition", node.inputs
        elif node.op_type in ("LayerNormalization", "Gelu", "Erf", "Softmax"):
            what, operands = node.op_type, node.inputs[:1]
        else:
            continue
        if any(_is_rounded(value, target) for value in operands):
            yield node.name, f"{what} reads INT8 values"


def _is_rounded(value: ir.Value | None, target: Target) -> bool:
    """Whether `value` was rounded to INT8, by other than a kernel that puts out nothing else."""
    node = dequantize(value)
    quantize = maker(node.inputs[0]) if node is not None else None
    source = maker(quantize.inputs[0]) if quantize is not None else None
    if source is not None and source.op_type == "Relu":
        source = maker(source.inputs[0])
    kernels = target.quantization.quantized_outputs
    return node is not None and (source is None or source.op_type not in kernels)


def _dead_channel(graph: Structure, target: Target) -> Iterator[Complaint]:
    for node, _ in graph.products():
        constant = weights(node)
        if constant is None:
            continue
        weight, axis = constant
        dead = ~weight.any(axis=tuple(i for i in range(weight.ndim) if i != axis))
        if dead.any():
            yield node.name, f"{dead.sum()} of its {dead.size} output channels are zero weights"


def decomposed_norms(graph: Structure) -> Iterator[ir.Node]:
    """The Sqrt of every LayerNorm that is spelled out in six operators."""
    path = (("Add",), ("ReduceMean",), ("Pow", "Mul"), ("Sub",), ("ReduceMean",))
    for node in graph.nodes:
        if node.op_type == "Sqrt" and comes_from(node, path):
            yield node


def comes_from(node: ir.Node, path: tuple[tuple[str, ...], ...]) -> bool:
    """Whether some chain of inputs leads from `node` through operators of `path`."""
    if not path:
        return True
    makers = filter(None, map(maker, node.inputs))
    return any(node.op_type in path[0] and comes_from(node, path[1:]) for node in makers)


RESIDUAL = Rule(
    "residual-quantized", "other numbers",
    "take Q/DQ off the residual stream: this is what collapses ViTs", _residual,
)  # fmt: skip
ONE_OPERAND = Rule("one-operand", "INT8 lost", "quantize both operands, or neither", _one_operand)
CHANNEL_ACTIVATION = Rule(
    "per-channel-activation", "INT8 lost",
    "one scale for the tensor; equalize channels beforehand", _channel_activations,
)  # fmt: skip
DEAD_CHANNEL = Rule(
    "dead-channel", "slower",
    "remove these channels, or look why training left them", _dead_channel,
)  # fmt: skip
