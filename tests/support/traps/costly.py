"""Graphs that lose INT8, or the one kernel of attention."""

import numpy as np

from tests.support.qdq import QDQ, TOKENS, WIDTH, attention, fused_qkv, integers
from tests.support.traps import CONTEXT, SCORES, Trap, apart, linear, lost, read, taken


def only_weights():
    graph = QDQ()
    graph.add("MatMul", ["x", graph.weight("w", integers(WIDTH, WIDTH))], "y")
    return graph.model()


def only_activation():
    graph = QDQ()
    weight = graph.constant("w", np.ones((WIDTH, WIDTH)))
    graph.add("MatMul", [graph.activation("x"), weight], "y")
    return graph.model()


def channel_activation():
    return read(scale=np.linspace(0.01, 0.1, WIDTH)).model()


def scale_of_each_input_channel():
    return linear(axis=0).model()


def turned_scale_of_each_input_channel():
    return turned(axis=1)


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


def gemm_on_its_inner_axis():
    return gemm(axis=1, trans_b=1)


def conv_on_its_inner_axis():
    return conv(axis=1)


def computed_scale():
    return scaled("ReduceMax", "x", keepdims=0)


def reduced_scale():
    return scaled("ReduceMax", "stored", keepdims=0)


def scaled(op, source, **attributes):
    graph = QDQ()
    graph.constant("stored", np.full(1, 0.05))
    graph.add(op, [source], "s", **attributes)
    parts = ["s", graph.constant("z", np.int8(0))]
    graph.add("QuantizeLinear", ["x", *parts], "x.q")
    graph.linear(graph.add("DequantizeLinear", ["x.q", *parts], "x.dq"), "y")
    return graph.model()


def dead_channel():
    values = integers(WIDTH, WIDTH)
    values[:, 3] = 0
    return linear(values=values).model()


def quantized_scores():
    graph = attention(QDQ(), scale="after", quantize_scores=True)
    return graph.model()


def one_product():
    return attention(QDQ(), quantized="qk").model()


def other_product():
    return attention(QDQ(), quantized="pv").model()


def heads_of_80():
    return attention(QDQ(), head=80).model()


def too_many_tokens():
    return attention(QDQ()).model(tokens=513)


def qkv_by_split():
    return fused_qkv(QDQ(), "Split").model()


def qkv_by_slices():
    return fused_qkv(QDQ(), "Slice").model(batch="batch")


def qkv_by_gather():
    return fused_qkv(QDQ(), "Gather").model()


def qkv_of_float_attention():
    return fused_qkv(QDQ(), "Split", quantized=False).model(batch="batch")


COSTLY = [
    Trap("one-operand", only_weights, "y/MatMul", lost),
    Trap("one-operand", only_activation, "y/MatMul", lost),
    Trap("per-channel-activation", channel_activation, "x.q/QuantizeLinear", lost),
    Trap("weight-axis", scale_of_each_input_channel, "y.m/MatMul", lost),
    Trap("weight-axis", turned_scale_of_each_input_channel, "y/MatMul", lost),
    Trap("weight-axis", gemm_on_its_inner_axis, "y/Gemm", lost),
    Trap("weight-axis", conv_on_its_inner_axis, "y/Conv", lost),
    Trap("computed-scale", computed_scale, "x.q/QuantizeLinear", lost),
    Trap("computed-scale", reduced_scale, "x.q/QuantizeLinear", lost),
    Trap("fused-qkv", qkv_by_split, "qkv.m/MatMul", lost),
    Trap("fused-qkv", qkv_by_slices, "qkv.m/MatMul", lost),
    Trap("fused-qkv", qkv_by_gather, "qkv.m/MatMul", lost),
    Trap("fused-qkv", qkv_of_float_attention, "qkv.m/MatMul", lost),
    Trap("quantized-scores", quantized_scores, SCORES, apart),
    Trap("one-attention-product", one_product, SCORES, apart),
    Trap("one-attention-product", other_product, CONTEXT, apart),
    Trap("attention-size", heads_of_80, SCORES, apart),
    Trap("attention-size", too_many_tokens, SCORES, apart),
    Trap("dead-channel", dead_channel, "y.m/MatMul", taken),
]
