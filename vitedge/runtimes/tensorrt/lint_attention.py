"""Traps of TensorRT around attention: what loses INT8 in Q, K, V, and what is not one kernel."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vitedge.core.runtime import Complaint, Rule
from vitedge.core.spec import Target
from vitedge.graph.constants import is_constant
from vitedge.graph.match import ELEMENTWISE, MOVES, attentions, two_activations
from vitedge.graph.structure import PRODUCTS, Structure, dequantize, read_quantizer, sizes

_SLICES = ("Split", "Slice", "Gather")


def _int8(node: ir.Node) -> bool:
    return all(map(dequantize, node.inputs))


def _fused_qkv(graph: Structure, target: Target) -> Iterator[Complaint]:
    """One Linear for Q, K and V whose weight is stored in INT8 with a scale a channel.

    Measured with TensorRT-RTX 1.7.1 for 7.5, 8.6, 8.9 and 12.0, static and dynamic batch, cut by
    Split, Slice or Gather, widths 64 to 1280, 16 to 577 tokens, attention in INT8 or float: its
    weight is dequantized, cut and concatenated, and the product is float16. INT8 stays with one
    scale for the weight, with a float weight through Q and DQ, with Q/DQ before the cut, and where
    only two of Q, K and V are made at once.
    """
    for node, (left, right) in graph.products():
        if node.op_type == "Conv" or left is None or right is None:
            continue
        if not is_constant(right.inputs[0]) or read_quantizer(right).axis is None:  # INT8 is kept
            continue
        parts = [part for part in _slices(node.outputs[0]) if _is_attended(part)]
        if len(parts) > 2:
            yield (
                node.name,
                f"it makes Q, K and V at once: the compiler slices its weights in float16 "
                f"({len(parts)} slices)",
            )


def _slices(product: ir.Value) -> list[ir.Value]:
    """The parts into which a Linear's output is cut, bias and moves aside; not through Q/DQ."""
    parts, pending, seen = [], [product], {product}
    while pending:
        for node in pending.pop().consumers():
            with_constant = node.op_type in ELEMENTWISE and not two_activations(node)
            if node.op_type in _SLICES:
                parts += [part for part in node.outputs if part not in seen]
            elif (node.op_type in MOVES or with_constant) and node.outputs[0] not in seen:
                pending.append(node.outputs[0])
            seen.update(node.outputs)
    return parts


def _is_attended(value: ir.Value) -> bool:
    """Whether an operand of a product of two activations is computed from `value`."""
    pending, seen = [value], {value}
    while pending:
        for node in pending.pop().consumers():
            if node.op_type in PRODUCTS:
                if two_activations(node):
                    return True
                continue
            outputs = [output for output in node.outputs if output not in seen]
            seen.update(outputs)
            pending += outputs
    return False


def _quantized_scores(graph: Structure, target: Target) -> Iterator[Complaint]:
    """Both products stay INT8, but in kernels of their own; after P·V, Q/DQ does no harm."""
    for attention in attentions(graph):
        if attention.scores_quantized:
            yield attention.qk.name, f"its output is quantized before '{attention.softmax.name}'"


def _one_product(graph: Structure, target: Target) -> Iterator[Complaint]:
    for attention in attentions(graph):
        first, second = _int8(attention.qk), _int8(attention.pv)
        if first != second:
            int8, other = (attention.qk, attention.pv) if first else (attention.pv, attention.qk)
            yield int8.name, f"it is INT8, but '{other.name}' of the same attention is float"


def _attention_size(graph: Structure, target: Target) -> Iterator[Complaint]:
    """Both products stay INT8, but in kernels of their own; in float16 they are fused."""
    heads = target.quantization.attention_head_sizes
    most = target.quantization.attention_max_tokens
    for attention in attentions(graph):
        if not (_int8(attention.qk) and _int8(attention.pv)):
            continue
        head = (0, *sizes(attention.qk.inputs[0]))[-1]
        tokens = max(sizes(attention.qk.outputs[0])[-2:], default=0)
        if head and heads and head not in heads:
            fused = ", ".join(map(str, heads))
            yield attention.qk.name, f"INT8 attention with heads of {head}; fused: {fused}"
        elif most and tokens > most:
            yield attention.qk.name, f"INT8 attention over {tokens} tokens; fused: up to {most}"


RULES = (
    Rule(
        "fused-qkv", "INT8 lost",
        "split it into three MatMuls, which the compiler merges again; or store its weight in "
        "float, with Q and DQ", _fused_qkv,
    ),
    Rule(
        "quantized-scores", "slower",
        "no Q/DQ on the output of Q·Kᵀ: attention is then one kernel", _quantized_scores,
    ),
    Rule(
        "one-attention-product", "slower",
        "quantize both products, or neither: attention is then one kernel", _one_product,
    ),
    Rule(
        "attention-size", "slower",
        "leave both products in float16: attention is then one kernel", _attention_size,
    ),
)  # fmt: skip
"""Worst first."""
