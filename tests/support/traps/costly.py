"""Graphs that lose INT8, or the one kernel of attention."""

from functools import partial

import numpy as np

from tests.support.qdq import QDQ, TOKENS, WIDTH, attention, fused_qkv, integers
from tests.support.traps import CONTEXT, SCORES, Trap, apart, linear, lost, read, taken

DEAD_CHANNEL = integers(WIDTH, WIDTH)
DEAD_CHANNEL[:, 3] = 0


def only_weights():
    graph = QDQ()
    graph.add("MatMul", ["x", graph.weight("w", integers(WIDTH, WIDTH))], "y")
    return graph.model()


def only_activation():
    graph = QDQ()
    weight = graph.constant("w", np.ones((WIDTH, WIDTH)))
    graph.add("MatMul", [graph.activation("x"), weight], "y")
    return graph.model()


def turned(axis):
    """A weight stored as (N, K), transposed on its way."""
    graph = QDQ()
    weight = graph.weight("w", integers(WIDTH, WIDTH), axis=axis)
    graph.add("Transpose", [weight], "w.t", perm=[1, 0])
    graph.add("MatMul", [graph.activation("x"), "w.t"], "y")
    return graph.model()


def gemm(axis, trans_b):
    graph = QDQ()
    graph.add("Reshape", ["x", graph.constant("shape", np.array([TOKENS, WIDTH]))], "flat")
    weight = graph.weight("w", integers(WIDTH, WIDTH), axis=axis)
    bias = graph.constant("b", np.ones(WIDTH))
    graph.add("Gemm", [graph.activation("flat"), weight, bias], "y", transB=trans_b)
    return graph.model()


def conv(axis):
    graph = QDQ()
    graph.add("Reshape", ["x", graph.constant("shape", np.array([1, 16, 8, 8]))], "map")
    weight = graph.weight("w", integers(32, 16, 2, 2), axis=axis)
    bias = graph.constant("b", np.ones(32))
    left = graph.activation("map")
    graph.add("Conv", [left, weight, bias], "y", kernel_shape=[2, 2], strides=[2, 2])
    return graph.model()


def scaled(op, source, **attributes):
    """A Quantizer's scale is computed by `op`, of x or of a stored constant."""
    graph = QDQ()
    graph.constant("stored", np.full(1, 0.05))
    graph.add(op, [source], "s", **attributes)
    parts = ["s", graph.constant("z", np.int8(0))]
    graph.add("QuantizeLinear", ["x", *parts], "x.q")
    graph.linear(graph.add("DequantizeLinear", ["x.q", *parts], "x.dq"), "y")
    return graph.model()


computed_scale = partial(scaled, "ReduceMax", "x", keepdims=0)
reduced_scale = partial(scaled, "ReduceMax", "stored", keepdims=0)
quantized_scores = attention(QDQ(), scale="after", quantize_scores=True).model
heads_of_80 = attention(QDQ(), head=80).model
too_many_tokens = partial(attention(QDQ()).model, tokens=513)
qkv_by_split = fused_qkv(QDQ(), "Split").model
qkv_by_slices = partial(fused_qkv(QDQ(), "Slice").model, batch="batch")
qkv_of_float_attention = partial(fused_qkv(QDQ(), "Split", quantized=False).model, batch="batch")
scale_of_each_channel = read(scale=np.linspace(0.01, 0.1, WIDTH)).model

COSTLY = [
    Trap("one-operand", only_weights, "y/MatMul", lost),
    Trap("one-operand", only_activation, "y/MatMul", lost),
    Trap("per-channel-activation", scale_of_each_channel, "x.q/QuantizeLinear", lost),
    # along the axis that is added up
    Trap("weight-axis", linear(axis=0).model, "y.m/MatMul", lost),
    Trap("weight-axis", partial(turned, axis=1), "y/MatMul", lost),
    Trap("weight-axis", partial(gemm, axis=1, trans_b=1), "y/Gemm", lost),
    Trap("weight-axis", partial(conv, axis=1), "y/Conv", lost),
    Trap("computed-scale", computed_scale, "x.q/QuantizeLinear", lost),
    Trap("computed-scale", reduced_scale, "x.q/QuantizeLinear", lost),
    Trap("fused-qkv", qkv_by_split, "qkv.m/MatMul", lost),
    Trap("fused-qkv", qkv_by_slices, "qkv.m/MatMul", lost),
    Trap("fused-qkv", fused_qkv(QDQ(), "Gather").model, "qkv.m/MatMul", lost),
    Trap("fused-qkv", qkv_of_float_attention, "qkv.m/MatMul", lost),
    Trap("quantized-scores", quantized_scores, SCORES, apart),
    Trap("one-attention-product", attention(QDQ(), quantized="qk").model, SCORES, apart),
    Trap("one-attention-product", attention(QDQ(), quantized="pv").model, CONTEXT, apart),
    Trap("attention-size", heads_of_80, SCORES, apart),
    Trap("attention-size", too_many_tokens, SCORES, apart),
    Trap("dead-channel", linear(values=DEAD_CHANNEL).model, "y.m/MatMul", taken),
]
